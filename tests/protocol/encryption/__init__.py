"""Tests of the pure rules of end-to-end encryption."""
