"""Tests of the Client-Server API, over HTTP, with a whole server in the same process."""
