"""Transactions of other servers: PDUs and EDUs."""
