"""Push: whom events notify, and how much of that is unread."""
