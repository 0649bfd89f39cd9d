"""The OAuth 2.0 API: clients, and the sessions that users permit them."""
