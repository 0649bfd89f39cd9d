"""Tests of the words of texts and search terms."""
