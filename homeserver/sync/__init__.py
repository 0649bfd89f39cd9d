"""Sync: one engine that makes the updates for devices, by long poll and by WebSocket."""
