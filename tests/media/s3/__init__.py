"""Media in a bucket."""
