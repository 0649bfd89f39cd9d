"""Clients and sessions of the OAuth 2.0 API."""
