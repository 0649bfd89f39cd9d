"""The OAuth 2.0 API over HTTP."""
