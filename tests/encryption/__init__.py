"""Tests of what the server stores for end-to-end encryption."""
