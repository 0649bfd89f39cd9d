"""Tables of application services."""
