"""Log-in sessions: devices, access tokens, and who makes a request."""
