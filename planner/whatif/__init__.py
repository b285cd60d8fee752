"""Offline answers: a trace, a profile and an SLA in; attainment and GPU-hours per policy out."""
