"""Tests of signing keys, and of request authentication."""
