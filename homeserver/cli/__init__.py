"""The command `homeserver`: running and administering the server."""
