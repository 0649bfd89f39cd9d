"""Tests of what becomes of other servers' events."""
