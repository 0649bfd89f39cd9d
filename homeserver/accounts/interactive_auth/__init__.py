"""User-interactive authentication."""
