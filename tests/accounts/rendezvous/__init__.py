"""Rendezvous sessions, and what strangers can do with them."""
