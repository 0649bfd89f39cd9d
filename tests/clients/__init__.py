"""Clients of other projects, and a plain one of this project, against a real server process."""
