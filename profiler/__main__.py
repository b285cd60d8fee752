"""`python -m profiler`, where the command is not on the path."""

from profiler.cli import main

main()
