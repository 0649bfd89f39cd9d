"""Sending the events of clients, each request once."""
