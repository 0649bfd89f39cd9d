"""A room in memory, its one writer, and the registry of all rooms."""
