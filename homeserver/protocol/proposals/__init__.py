"""What is proposed for the specification: its names, and rules that are not in it yet."""
