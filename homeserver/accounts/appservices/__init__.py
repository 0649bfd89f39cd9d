"""The application services of this server, and the users that they act as."""
