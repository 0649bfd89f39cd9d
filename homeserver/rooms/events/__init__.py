"""Single events: drafts, stored events, and the store that finds them."""
