"""The rules of the OAuth 2.0 API: clients, redirect URIs, scopes, requests and callbacks."""
