"""Kills of the server or its database under load, and the data that must survive them."""
