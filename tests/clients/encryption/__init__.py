"""Encrypted chat between real clients: on one server, and across two."""
