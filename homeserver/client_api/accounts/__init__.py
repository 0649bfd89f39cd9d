"""Accounts, sessions, devices, and what users store with their account."""
