"""Tests of the server-side search below the API."""
