"""PDUs of other servers: their checks, and their effects on rooms."""
