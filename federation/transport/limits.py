"""Bounds of what other servers may send in one response, and how long they may take."""

MAX_STATE_BYTES = 256 * 1_048_576  # of a response that holds the state of a room
STATE_TIMEOUT_SECONDS = 300.0  # that a large room may take to be sent
