"""Late imports: a module that one feature needs is imported when the feature is first used.

Some packages take megabytes, and most servers never use them. To import one takes a tenth of a
second or more, for which the reactor must not stand still: it is done in a thread.

`tests/cli/test_loaded_modules.py` says what a server has not loaded when it has started.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any, Generic, TypeVar

from homeserver.concurrency.single_flight import SingleFlight
from homeserver.concurrency.thread_pools import run_in_own_thread

T = TypeVar("T")


class Late(Generic[T]):
    """A value that is made when it is first needed, by `make`, which may then import `module`."""

    def __init__(self, reactor: Any, module: str, make: Callable[[], T]) -> None:
        self._reactor = reactor
        self._module = module
        self._make = make
        self._made: list[T] = []
        self._imports: SingleFlight[str, T] = SingleFlight()

    async def get(self) -> T:
        """The value. Only the first caller, and those at the same time, wait."""
        if self._made:
            return self._made[0]
        return await self._imports.join(self._module, self._import)

    async def _import(self) -> T:
        name = f"import of {self._module}"
        await run_in_own_thread(self._reactor, name, import_module, self._module)
        self._made.append(self._make())
        return self._made[0]
