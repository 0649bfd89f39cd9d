"""Rooms: the writer of each room, what readers see of it, and who may see what."""
