"""Tests of accounts over the API."""
