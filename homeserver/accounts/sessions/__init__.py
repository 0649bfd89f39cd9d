"""Log-in sessions: devices, access tokens, and the requester of a request."""
