"""Tests of the requests and responses of sliding sync."""
