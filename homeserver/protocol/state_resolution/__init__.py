"""State resolution: one room state out of the states after several events (see resolution.py)."""
