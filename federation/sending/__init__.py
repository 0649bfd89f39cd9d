"""What is sent to other servers: a queue for each destination."""
