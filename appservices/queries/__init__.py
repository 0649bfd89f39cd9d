"""Questions to application services: for users, for rooms, and about their networks."""
