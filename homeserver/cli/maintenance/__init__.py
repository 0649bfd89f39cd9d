"""Commands that maintain what the server has stored."""
