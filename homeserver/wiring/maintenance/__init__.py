"""The parts that maintain what the server has stored."""
