"""Keys and device lists of users of other servers."""
