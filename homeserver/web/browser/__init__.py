"""What browsers send besides the requests of clients."""
