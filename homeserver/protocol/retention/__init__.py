"""How long messages are kept, by proposals that are not in the specification."""
