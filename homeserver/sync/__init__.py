"""What a device has not seen yet: one engine, behind the long poll and the WebSocket."""
