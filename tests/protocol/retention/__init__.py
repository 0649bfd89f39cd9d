"""How long messages are kept."""
