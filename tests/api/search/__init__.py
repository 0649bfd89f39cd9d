"""Tests of the server-side search over the API."""
