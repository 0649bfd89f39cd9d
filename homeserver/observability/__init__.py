"""What the server tells about its work: log lines and metrics."""
