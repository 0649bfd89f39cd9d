"""Tests of signing keys and of authentication by them."""
