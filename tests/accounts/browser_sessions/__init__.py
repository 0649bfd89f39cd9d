"""Sessions of users in a browser."""
