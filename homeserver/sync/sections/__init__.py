"""The sections of an update: rooms, account data, and what is for one device."""
