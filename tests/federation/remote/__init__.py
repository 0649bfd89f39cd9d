"""Tests of what local users do and see on other servers."""
