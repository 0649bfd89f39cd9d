"""Tests of sticky events in memory."""
