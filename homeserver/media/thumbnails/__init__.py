"""Thumbnails: made in separate processes, and stored like other contents."""
