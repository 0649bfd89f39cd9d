"""Tests of stored states and of state resolution."""
