"""The response to a transaction of another server while parts of this one fail."""

from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from federation.receiving.pdu_queue import IncomingQueue
from homeserver.protocol.errors import Unavailable

PDU = b'{"room_id": "!room:there.example", "type": "m.room.message"}'


class NoDatabase:
    """The rooms' access lists cannot be read."""

    async def present(self, origin: str, room_id: str) -> None:
        """Raise the error of an unavailable database."""
        raise Unavailable("The database is away")


class IncomingQueueTests(SynchronousTestCase):
    """A queue whose collaborators fail."""

    def test_unstored_events_are_sent_again(self) -> None:
        """A restart of the database loses nothing: the other server gets an error, and retries."""
        unused: Any = None
        access: Any = NoDatabase()
        inbox = IncomingQueue(unused, access, unused, unused, unused, unused, unused)

        for _ in range(2):
            taking = Deferred.fromCoroutine(inbox.put("there.example", [msgspec.Raw(PDU)] * 2))
            self.failureResultOf(taking, Unavailable)
