"""The tables of end-to-end encryption."""
