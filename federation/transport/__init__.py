"""Requests to other servers: where they go, how they are sent, and when they are tried again."""
