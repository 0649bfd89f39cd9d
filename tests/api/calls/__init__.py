"""Calls over the API."""
