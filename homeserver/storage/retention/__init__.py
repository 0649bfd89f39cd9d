"""What is deleted after a time: one module for each table."""
