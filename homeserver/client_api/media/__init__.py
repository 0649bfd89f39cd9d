"""The content repository over the API."""
