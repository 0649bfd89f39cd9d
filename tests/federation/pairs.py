"""Which servers the scenarios are played between: the one place to change it.

Each pair names the kind of the first site, where rooms are made, and of the second.
"""

from tests.support.sites import OURS, PEER

PAIRS = [(OURS, OURS), (OURS, PEER), (PEER, OURS)]

# Every scenario is for these once ours federates: each kind in both roles, and ours alone.
PAIRS_WITH_OURS = [(OURS, PEER), (PEER, OURS), (OURS, OURS)]

# The kinds that the scripted server is played against.
KINDS = [PEER]
