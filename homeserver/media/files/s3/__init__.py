"""Files in a bucket of S3, or of another service with its API."""
