"""Tests of the configuration: loading, errors, and the generated documents."""
