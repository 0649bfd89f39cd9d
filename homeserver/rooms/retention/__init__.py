"""Messages that expire, and the purge of history and of rooms."""
