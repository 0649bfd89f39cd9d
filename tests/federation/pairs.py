"""The servers that the scenarios are played between: the one place to change it.

A pair names the kind of the first site, where rooms are made, and of the second. The peer alone,
`(PEER, PEER)`, shows that a scenario is right, and is not only passed by our server.
"""

from tests.support.sites import OURS, PEER

PAIRS = [(OURS, OURS), (OURS, PEER), (PEER, OURS)]

# The kinds that the scripted server is played against.
KINDS = [OURS, PEER]
