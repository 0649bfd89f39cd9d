"""The checks of `homeserver doctor`."""
