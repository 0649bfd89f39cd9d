"""What survives when the server or its database is killed under load."""
