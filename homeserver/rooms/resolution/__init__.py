"""State resolution over stored states."""
