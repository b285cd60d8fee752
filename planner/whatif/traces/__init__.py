"""Request traces: readers, scaling, prefix hits and the seeded generator."""
