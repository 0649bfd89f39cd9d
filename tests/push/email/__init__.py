"""Notifications by e-mail, over real SMTP."""
