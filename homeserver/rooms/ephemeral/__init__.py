"""Receipts, read markers and typing notifications."""
