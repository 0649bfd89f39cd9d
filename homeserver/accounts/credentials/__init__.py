"""Credentials that authenticate a user: passwords, tokens, shared secrets."""
