"""Creating and upgrading rooms."""
