"""The tables of rooms and their events."""
