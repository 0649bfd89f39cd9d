"""A homeserver whose every response a test decides."""
