"""The servers that encrypted scenarios run on; the one place to change them.

A pair names the kind of the server of the first user, where rooms are made, and of the second; a
single kind is a server that has both. To show that a scenario is right, and not only passed by this
implementation, run it with `(PEER,)` and `(PEER, PEER)`.
"""

from tests.support.sites import LOCAL, PEER

PAIRS: list[tuple[str, ...]] = [(LOCAL,), (LOCAL, LOCAL), (LOCAL, PEER)]
NAMES = ["alone", "two", "peer"]
