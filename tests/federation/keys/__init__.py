"""Tests of signing keys and of who is let in by them."""
