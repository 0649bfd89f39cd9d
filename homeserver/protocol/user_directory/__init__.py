"""The rules of the user directory: by which words a user is found, and in which order."""
