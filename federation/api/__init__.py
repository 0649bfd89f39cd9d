"""The endpoints of the Server-Server API."""
