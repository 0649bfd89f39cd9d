"""Reading a room: its timeline, its relations, and who may see what."""
