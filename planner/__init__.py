"""Plimsoll's planner: how many vLLM workers, at which layout, does the coming traffic need to meet the SLA?"""
