"""Tests of certificates that the server obtains by itself."""
