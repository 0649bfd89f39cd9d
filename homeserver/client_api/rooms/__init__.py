"""Rooms: their events, members, history, aliases and directory."""
