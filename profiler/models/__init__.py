"""Models by their config alone: sizes, arithmetic, stand-ins without weights, and layouts that fit on GPUs."""
