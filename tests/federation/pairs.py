"""The pairs of servers that the scenarios run between; the one place to change them.

A pair names the kind of the first site, where rooms are made, and of the second. To show that a
scenario is right, and not only passed by this implementation, run it between two peers: `(PEER,
PEER)`.
"""

from tests.support.sites import LOCAL, PEER

PAIRS = [(LOCAL, LOCAL), (LOCAL, PEER), (PEER, LOCAL)]

# The kinds that the scripted server is played against.
KINDS = [LOCAL, PEER]
