"""Certificates that the server obtains and renews by itself, by ACME (RFC 8555)."""
