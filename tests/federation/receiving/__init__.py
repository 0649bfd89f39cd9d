"""Tests of receiving transactions of other servers."""
