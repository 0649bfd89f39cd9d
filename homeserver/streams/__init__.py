"""The log that every change goes through: positions, group commit, subscribers."""
