"""The smallest page of Twisted Web, for comparison: `python -m benchmarks.load.trivial_page PORT`.

The cost of a message is given in requests of this page, to compare figures of two machines.
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
    """Responds to every GET with the same few bytes of JSON."""

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
