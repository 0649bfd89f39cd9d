"""Files on disk: received, stored under the hash of their content, and read."""
