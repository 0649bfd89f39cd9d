"""Sticky events: those that still stick, in which rooms, and who gets them."""
