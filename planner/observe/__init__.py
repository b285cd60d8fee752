"""Metrics sources that turn measurements into an Observation (Known, or Unknown with a reason and an age)."""
