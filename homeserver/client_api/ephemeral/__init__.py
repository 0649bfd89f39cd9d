"""Typing, receipts, read markers and presence."""
