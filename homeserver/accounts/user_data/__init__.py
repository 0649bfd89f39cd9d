"""The data that users store with their account: profile, account data, filters."""
