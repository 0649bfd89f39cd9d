"""Sending to other servers: a queue for each destination."""
