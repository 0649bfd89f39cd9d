"""The Server-Server API: how this server talks with the other servers of a room."""
