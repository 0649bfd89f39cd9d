"""Tables of the OAuth 2.0 API."""
