"""Who is online: what devices say and do, turned into one presence for each user."""
