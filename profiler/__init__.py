"""Measured tables of an engine on a GPU: format, interpolation with its error, import, export, pictures."""
