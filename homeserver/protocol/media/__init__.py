"""The rules of the content repository, pure."""
