"""How users find rooms: aliases, the room directory, summaries and spaces."""
