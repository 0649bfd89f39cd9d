"""E-mail addresses and phone numbers of accounts."""
