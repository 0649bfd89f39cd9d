"""Tests of end-to-end encryption over the API."""
