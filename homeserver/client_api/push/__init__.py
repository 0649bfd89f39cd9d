"""Push rules and notifications."""
