"""Tests of requests to other servers for local users."""
