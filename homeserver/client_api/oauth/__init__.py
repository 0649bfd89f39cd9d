"""The endpoints and pages of the OAuth 2.0 API."""
