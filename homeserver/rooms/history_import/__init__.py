"""The import of old messages into rooms, for bridges."""
