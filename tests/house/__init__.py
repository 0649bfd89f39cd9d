"""Checks of the rules of the house: what a test can check is not left to reviewers."""
