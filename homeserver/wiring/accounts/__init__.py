"""Accounts: their core, the services for users, and addresses."""
