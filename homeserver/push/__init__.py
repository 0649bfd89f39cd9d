"""Push: the users that events notify, and their unread counts."""
