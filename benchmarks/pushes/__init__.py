"""Pushes to a gateway that accepts everything at once."""
