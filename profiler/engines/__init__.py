"""Engines under test: the machine they run on, the command that starts one, and one that runs."""
