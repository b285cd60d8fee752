"""`planner doctor`: what keeps a planner from working here, found before it is deployed and while it runs.

Every group of checks is a module of its own and reads what the planner reads, the way the planner reads it: the same
client of the API server, the same connector, the same metrics source.
"""
