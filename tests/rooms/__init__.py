"""Tests of rooms: their state, their writer, what their readers see."""
