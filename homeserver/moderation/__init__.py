"""Moderation: what users tell the administrators of this server."""
