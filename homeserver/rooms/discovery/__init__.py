"""Finding rooms: aliases, the room directory, summaries and spaces."""
