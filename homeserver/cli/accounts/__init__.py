"""The commands that concern accounts."""
