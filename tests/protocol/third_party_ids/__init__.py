"""Tests of e-mail addresses and telephone numbers as identifiers."""
