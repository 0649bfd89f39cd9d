"""Tests of the configuration: reading, refusing, and the documents made from it."""
