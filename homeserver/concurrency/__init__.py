"""Concurrency primitives that do not depend on Matrix: periodic tasks, pools, time slices."""
