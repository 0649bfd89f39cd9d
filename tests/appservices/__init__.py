"""Tests of application services."""
