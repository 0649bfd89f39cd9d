"""Real bridges, which connect users of this server with other networks."""
