"""PDUs of other servers: how they are checked, and what becomes of them."""
