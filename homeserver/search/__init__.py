"""Server-side search: the index, and what users find in it."""
