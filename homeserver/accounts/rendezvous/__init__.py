"""Places where a new device and an old one of a user meet before the new one is signed in."""
