"""Which layouts to serve a model with: measured profiles, sized by the planner's own model, and the files to run them.

Lies above the planner's core, so that what is chosen here is what the planner would hold at that load.
"""
