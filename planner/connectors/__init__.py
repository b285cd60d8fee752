"""What a plan is carried out on: one file per kind of target, one interface."""
