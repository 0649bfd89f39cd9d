"""Tables of end-to-end encryption."""
