"""Simplified sliding sync: its requests and responses as values, in both of their forms."""
