"""Tests of receiving PDUs of other servers."""
