"""`homeserver appservice`: bridges and other application services."""
