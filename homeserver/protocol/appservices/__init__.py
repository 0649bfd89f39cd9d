"""Application services: what a registration means."""
