"""Background jobs: work in small steps, which continues where it stopped."""
