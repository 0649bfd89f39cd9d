"""Sessions of users in a browser, and what they permit there."""
