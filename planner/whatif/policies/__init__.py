"""Autoscaling policies under one small interface: ours, static counts, and the peers'."""
