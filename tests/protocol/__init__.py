"""Tests of the pure rules in `homeserver.protocol`."""
