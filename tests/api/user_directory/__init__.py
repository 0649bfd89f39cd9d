"""Tests of the user directory over the API."""
