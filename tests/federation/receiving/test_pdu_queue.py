"""What becomes of a transaction of another server, as far as that is told."""

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
        """Raise what everything raises while the database is away."""
        raise Unavailable("The database is away")


class IncomingQueueTests(SynchronousTestCase):
    """An inbox whose collaborators fail."""

    def test_what_cannot_be_stored_is_sent_again(self) -> None:
        """A restart of the database loses nothing: the other server is told to come again."""
        unused: Any = None
        access: Any = NoDatabase()
        inbox = IncomingQueue(unused, access, unused, unused, unused)

        for _ in range(2):
            taking = Deferred.fromCoroutine(inbox.put("there.example", [msgspec.Raw(PDU)] * 2))
            self.failureResultOf(taking, Unavailable)
