"""All tests write their temporary files into memory where that is possible."""

from tests.support.folders import use_memory_disk

use_memory_disk()
