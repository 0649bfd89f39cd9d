"""Tests of rooms over the API."""
