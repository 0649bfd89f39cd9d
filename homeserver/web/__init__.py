"""The shared HTTP plumbing: listeners, routes, access tokens, limits, CORS and errors."""
