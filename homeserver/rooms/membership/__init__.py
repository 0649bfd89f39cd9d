"""Memberships: joining, inviting, leaving, banning and knocking."""
