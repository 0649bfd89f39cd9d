"""Tests of log lines and metrics."""
