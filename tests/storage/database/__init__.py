"""Tests of connections, and of batches of statements, against a real PostgreSQL."""
