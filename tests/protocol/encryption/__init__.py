"""Rules of end-to-end encryption."""
