"""Construct what has files: the media repository and previews of URLs."""
