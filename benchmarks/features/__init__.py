"""Measurements of single features; each needs a server of its own."""
