"""Tests of profiles in syncs."""
