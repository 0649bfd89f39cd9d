"""Files of other servers: fetched once, passed on while they arrive, and cached."""
