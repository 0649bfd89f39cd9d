"""One event: as a draft, as it is stored, and where it is found again."""
