"""Tests of the content repository."""
