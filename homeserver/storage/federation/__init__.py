"""The tables of other servers."""
