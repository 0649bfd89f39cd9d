"""Persistent state trees: every state of a room, stored so that equal parts are shared."""
