"""Requests to other servers: discovery, connections, and back-off."""
