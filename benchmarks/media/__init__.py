"""Media: large files up and down, and thumbnails."""
