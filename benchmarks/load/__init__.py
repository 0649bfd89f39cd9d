"""What all benchmarks use: the load, the accounts that make it, and the table of figures."""
