"""The Application Service API: bridges and bots that act for many users of this server."""
