"""A connection of a client: bytes to requests."""
