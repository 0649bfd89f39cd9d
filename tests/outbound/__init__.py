"""Tests of the clients for what is outside."""
