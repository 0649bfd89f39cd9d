"""The creation of accounts."""
