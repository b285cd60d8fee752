"""The run: which layouts are measured on which engines, without losing a sample whatever happens to them."""
