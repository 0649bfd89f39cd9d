"""The index of messages, room names and topics for the server-side search."""
