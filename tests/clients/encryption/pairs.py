"""The servers that encrypted scenarios run on; the one place to change them.

A pair names the kind of the server of the first user, where rooms are made, and of the second;
`ONE_SERVER` has both.
"""

from tests.support.sites import LOCAL

ONE_SERVER = (LOCAL,)
PAIRS = [ONE_SERVER]
NAMES = ["alone"]
