"""What the command line shows of rooms."""
