"""Tests of single sign-on: whole sign-ins with scripted identity providers."""
