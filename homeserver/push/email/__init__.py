"""Notifications by e-mail: the unread messages of all rooms in one mail, now and then."""
