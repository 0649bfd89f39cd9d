"""Tests of log-in sessions, devices and tokens."""
