"""Clients of other projects, and a plain one of ours, against a real server process."""
