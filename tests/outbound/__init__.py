"""Tests of the clients for other services."""
