"""Tests of `homeserver/protocol/encryption`."""
