"""Tests of the authorisation rules."""
