"""Presence: the activity of a user's devices, turned into one state for each user."""
