"""The command `profiler`, and `python -m profiler`, where that is not on the path."""

from profiler.interrupts import keep_interrupts


def main() -> None:
    """Entry point."""
    keep_interrupts()
    # Only now: an interrupt may come while modules are imported.
    from profiler.cli import main as command  # noqa: PLC0415

    command()


if __name__ == "__main__":
    main()
