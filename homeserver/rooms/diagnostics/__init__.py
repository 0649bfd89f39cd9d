"""Reports about rooms, for the command line."""
