"""The demo: gateway, simulated engines, load and planner on this machine, with a page to watch."""
