"""The authorisation rules of all room versions."""
