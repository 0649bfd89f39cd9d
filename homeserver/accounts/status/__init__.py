"""Deactivation, erasure and moderation of accounts."""
