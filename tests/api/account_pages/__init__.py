"""The web pages on which users sign in and manage their accounts."""
