"""What users store with their account: profile, account data, filters."""
