"""Malformed requests to every endpoint."""
