"""Updates that are shared by those who see a change alike."""
