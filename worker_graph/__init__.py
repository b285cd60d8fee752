"""The worker graph: its specification, its engines and its gateway."""
