"""E-mail addresses and telephone numbers as identifiers of people."""
