"""The endpoint of the server-side search."""
