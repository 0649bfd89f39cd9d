"""Helpers of many tests: servers, databases, clients."""
