"""The tables of the user directory."""
