"""Importing old messages into rooms."""
