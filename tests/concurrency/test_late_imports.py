"""Modules that are imported when they are first needed."""

import sys
import threading
from typing import Any
from unittest.mock import patch

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from homeserver.concurrency import late_imports
from homeserver.concurrency.late_imports import Late

UNUSED = "this.module.exists.not"


class LateImportTests(TestCase):
    def setUp(self) -> None:
        self.threads: list[str] = []
        self.made = 0

    def imported(self, name: str) -> Any:
        self.threads.append(threading.current_thread().name)
        return sys.modules[name]

    def late(self, module: str = "json") -> Late[int]:
        return Late(reactor, module, self.make)

    def make(self) -> int:
        self.made += 1
        assert threading.current_thread() is threading.main_thread()
        return self.made

    async def test_a_module_is_imported_once_and_not_by_the_reactor(self) -> None:
        """Others are served meanwhile, and all who wait get the same."""
        late = self.late()
        with patch.object(late_imports, "import_module", self.imported):
            waiting = [Deferred.fromCoroutine(late.get()) for _ in range(3)]
            found = [await each for each in waiting]
            found.append(await late.get())

        assert found == [1, 1, 1, 1]
        assert len(self.threads) == 1
        assert threading.main_thread().name not in self.threads

    async def test_an_import_that_fails_is_tried_again(self) -> None:
        """A package may be installed meanwhile."""
        late = self.late(UNUSED)

        for _ in range(2):
            with self.assertRaises(ImportError):
                await late.get()

        assert self.made == 0
