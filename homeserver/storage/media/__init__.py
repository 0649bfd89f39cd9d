"""Tables of the content repository."""
