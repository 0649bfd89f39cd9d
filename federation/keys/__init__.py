"""Signing keys: those of this server, and those of other servers."""
