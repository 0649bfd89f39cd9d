"""The sections of homeserver.yaml, those of one subject in one module."""
