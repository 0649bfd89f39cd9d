"""Clients for other services: HTTP, SMTP, identity servers, with their TLS and name resolution."""
