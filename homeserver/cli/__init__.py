"""The command `homeserver`: run the server, and look after it."""
