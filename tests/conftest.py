"""All tests write their temporary files into memory where that is possible.

No example of a law has a deadline: it would fail on a machine that others use, too, and says
nothing of the law.
"""

from hypothesis import settings

from tests.support.folders import use_memory_disk

use_memory_disk()
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")
