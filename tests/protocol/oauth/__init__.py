"""The rules of the OAuth 2.0 API."""
