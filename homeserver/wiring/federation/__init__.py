"""Construct federation: its core, the requests to other servers, and the rooms shared with them."""
