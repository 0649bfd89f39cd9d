"""Finding servers: the rules of `discovery_rules.py`, with the waiting that they leave out.

Host names become IP addresses only when a connection is made, by the resolver of the operating
system, which also reads `/etc/hosts`.

Spec: https://spec.matrix.org/v1.19/server-server-api/#resolving-server-names
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from federation.transport.discovery_rules import (
    Address,
    AskWellKnown,
    NoAddress,
    Question,
    Service,
    locate,
)
from federation.transport.errors import Unreachable


class WellKnownLookup(Protocol):
    """Whom to ask for `.well-known` files."""

    async def find(self, host: str) -> str | None: ...


class SrvLookup(Protocol):
    """Whom to ask for SRV records."""

    async def find(self, name: str) -> Sequence[Service] | None: ...


class Discovery:
    """Resolves server names; what it asks for is remembered by those whom it asks."""

    def __init__(self, delegations: WellKnownLookup, services: SrvLookup) -> None:
        self._delegations = delegations
        self._services = services

    async def find(
        self, server_name: str, tell: Callable[[Question, Any], object] | None = None
    ) -> Address:
        """How a server is reached. Raises `Unreachable`.

        `tell` is called with each question and its answer.
        """
        steps = locate(server_name)
        answer: Any = None
        try:
            while True:
                question = steps.send(answer)
                if isinstance(question, AskWellKnown):
                    answer = await self._delegations.find(question.host)
                else:
                    answer = await self._services.find(question.name)
                if tell is not None:
                    tell(question, answer)
        except StopIteration as end:
            address: Address = end.value
            return address
        except NoAddress as error:
            raise Unreachable(server_name, str(error)) from error
