"""Transactions: events, and what else application services receive."""
