"""Messages that expire, and purges."""
