"""Observability: log lines and metrics."""
