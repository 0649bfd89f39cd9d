"""A homeserver of which a test says every word."""
