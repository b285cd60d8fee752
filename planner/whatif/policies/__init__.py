"""Autoscaling policies under one small interface: ours, static counts, and the peers'.

A policy is one file and one line in `POLICIES`: its name on the command line, and what makes it from the text behind
the colon and the replay's setting.
"""

from planner.whatif.policies.base import Policy, Setting
from planner.whatif.policies.registry import POLICIES, expand, make_policy
from planner.whatif.policies.static import parse_layout

__all__ = ["POLICIES", "Policy", "Setting", "expand", "make_policy", "parse_layout"]
