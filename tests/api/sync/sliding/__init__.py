"""Tests of sliding sync over HTTP."""
