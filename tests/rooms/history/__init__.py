"""Tests of reading rooms."""
