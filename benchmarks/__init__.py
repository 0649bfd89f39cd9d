"""What the server costs and how fast it is: `python -m benchmarks`."""
