"""Tests of the pure rules of the content repository."""
