"""Replays in which something is not as the planner believes: what each policy then attains and costs."""

from planner.whatif.robustness.disturbance import Disturbance
from planner.whatif.robustness.registry import DISTURBANCES, expand_disturbances, make_disturbance

__all__ = ["DISTURBANCES", "Disturbance", "expand_disturbances", "make_disturbance"]
