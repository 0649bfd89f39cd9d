"""Tests of the storage layer, against a real PostgreSQL."""
