"""Tests of sticky events in syncs."""
