"""Tests of accounts: log-in and registration, tokens, devices, profiles, account data, filters."""
