"""The server itself: versions, capabilities, discovery, reports and server notices."""
