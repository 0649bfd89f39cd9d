"""Tests of rooms: their state, their writer, their readers."""
