"""The yardstick: the least that Twisted Web can answer, `python -m benchmarks.trivial_page PORT`.

A message's cost is told in requests of this page, so that figures of two machines can be compared.
"""

import sys
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import Site


class TrivialPage(Resource):
    """Answers every GET with the same few bytes of JSON."""

    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        request.setHeader(b"content-type", b"application/json")
        return b'{"event_id":"$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}'


def main() -> None:
    """Serve the page until killed."""
    task.react(_serve)


async def _serve(reactor: Any) -> None:
    endpoint = TCP4ServerEndpoint(reactor, int(sys.argv[1]), interface="127.0.0.1")
    await endpoint.listen(Site(TrivialPage()))  # type: ignore[no-untyped-call]
    await Deferred()


if __name__ == "__main__":
    main()
