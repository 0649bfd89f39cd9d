"""Tests of canonical JSON, hashes and signatures."""
