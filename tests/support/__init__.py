"""What several tests need: servers, databases, clients."""
