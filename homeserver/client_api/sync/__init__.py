"""What clients follow: long polls, the WebSocket, and the older event stream."""
