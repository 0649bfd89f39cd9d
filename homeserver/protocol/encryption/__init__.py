"""End-to-end encryption: the pure rules of what the server stores for it."""
