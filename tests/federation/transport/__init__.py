"""Tests of requests to other servers."""
