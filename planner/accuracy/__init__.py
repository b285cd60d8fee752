"""The simulator against reality: recorded runs replayed with the profiles, and how far off the replay is."""
