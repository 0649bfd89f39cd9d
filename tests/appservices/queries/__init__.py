"""Tests of what is asked of application services."""
