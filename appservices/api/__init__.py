"""Endpoints that only application services use."""
