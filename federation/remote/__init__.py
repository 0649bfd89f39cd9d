"""Requests to other servers on behalf of local users."""
