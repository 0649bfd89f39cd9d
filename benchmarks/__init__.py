"""Measurements of the server's speed, CPU time and memory: `python -m benchmarks`."""
