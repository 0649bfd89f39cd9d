"""Requests of this server to application services."""
