"""Canonical JSON, hashes and signatures."""
