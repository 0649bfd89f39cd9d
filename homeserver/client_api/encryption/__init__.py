"""Endpoints of end-to-end encryption."""
