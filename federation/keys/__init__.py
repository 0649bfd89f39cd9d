"""Signing keys: those of this server, and those of others."""
