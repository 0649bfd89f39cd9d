"""Which servers the scenarios are played between: the one place to change it.

A pair names the kind of the first site, where rooms are made, and of the second. That a scenario is
right, and not only passed by ours, shows between two of the peer's: `(PEER, PEER)`.
"""

from tests.support.sites import LOCAL, PEER

PAIRS = [(LOCAL, LOCAL), (LOCAL, PEER), (PEER, LOCAL)]

# The kinds that the scripted server is played against.
KINDS = [LOCAL, PEER]
