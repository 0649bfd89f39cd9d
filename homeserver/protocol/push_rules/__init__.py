"""Push rules: which events notify whom. Pure: what the rules are, and what they say of an event."""
