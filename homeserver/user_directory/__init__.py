"""The user directory: who is found by whom. See docs/user-directory.md."""
