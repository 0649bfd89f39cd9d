"""Tests of creating and upgrading rooms."""
