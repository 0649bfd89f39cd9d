"""Simplified sliding sync: connections, room lists, and what of each room is sent."""
