"""Moderation: reports of users, and server notices to users."""
