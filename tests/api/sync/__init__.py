"""Tests of long polls and of the WebSocket over the API."""
