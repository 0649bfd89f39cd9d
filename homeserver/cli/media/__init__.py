"""The commands of `homeserver media`."""
