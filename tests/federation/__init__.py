"""Tests of the Server-Server API."""
