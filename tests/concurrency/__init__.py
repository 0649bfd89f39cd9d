"""Tests of concurrency primitives."""
