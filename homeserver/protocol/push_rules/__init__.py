"""Push rules: their data, and their evaluation on events, as pure code."""
