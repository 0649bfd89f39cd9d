"""Tests of the user directory."""
