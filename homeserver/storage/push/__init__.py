"""Tables of pushers."""
