"""Reading a room: its timeline, its relations, and the visibility of both."""
