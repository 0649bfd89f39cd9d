"""Configuration: `homeserver.yaml` as typed, validated and documented settings."""
