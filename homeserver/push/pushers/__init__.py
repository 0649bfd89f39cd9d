"""Pushers: what is set by clients, the decision whom an event is pushed to, and the pushing."""
