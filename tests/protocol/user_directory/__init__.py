"""Tests of the rules of the user directory."""
