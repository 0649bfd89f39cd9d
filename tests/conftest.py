"""All tests write their temporary files into memory where that is possible.

No example of a law has a deadline: it would fail on a machine that others use, too, and says
nothing of the law.
"""

import gc
from collections.abc import Generator
from unittest import TestCase

import pytest
from hypothesis import settings

from tests.support.folders import use_memory_disk

use_memory_disk()
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep half a million objects, mostly code, out of each full collection of garbage."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Test cases come first, which take long; thousands of quick functions fill the end.

    So no worker is left alone with a minute of work when the others have none.
    """
    items.sort(key=lambda item: not issubclass(getattr(item, "cls", None) or object, TestCase))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Let go of what a test case holds, such as a server.

    The test cases themselves were there when the objects were frozen, and are never collected.
    """
    case = getattr(item, "instance", None)
    try:
        return (yield)
    finally:
        if isinstance(case, TestCase):
            vars(case).clear()
