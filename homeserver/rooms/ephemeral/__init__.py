"""Receipts, read markers and typing notices."""
