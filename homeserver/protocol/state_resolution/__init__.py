"""State resolution: one room state from the states after several events (see resolution.py)."""
