"""Checks of the project's own rules: what a test can check is not left to reviewers."""
