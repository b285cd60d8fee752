"""The long-running planner: loop, lease, checkpoint, journal, metrics and HTTP interface."""
