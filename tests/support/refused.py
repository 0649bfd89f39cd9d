"""The error that the clients of tests raise when a server responds with an error."""

from typing import Any


class Refused(Exception):
    """The server responded with an error: its HTTP `status`, `errcode` and `body`."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(f"{status} {body}")
        self.status = status
        self.body = body
        self.errcode: str = body.get("errcode", "") if isinstance(body, dict) else ""
