"""Tests: a folder for each package, and folders for what only a whole server can show."""
