"""URL previews: what a page says of itself, for clients that show a link to it."""
