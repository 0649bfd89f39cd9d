"""Syncing: long polls, the WebSocket, and the older event stream."""
