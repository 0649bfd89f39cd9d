"""Tests of what is proposed for the specification."""
