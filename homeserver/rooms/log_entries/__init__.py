"""The wire format of the log entries of rooms."""
