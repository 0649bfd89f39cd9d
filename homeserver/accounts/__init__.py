"""Accounts: users, log-in and registration, tokens, devices, profiles, account data and filters."""
