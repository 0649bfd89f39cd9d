"""Concurrency primitives that know nothing of Matrix: periodic tasks, pools, time slices."""
