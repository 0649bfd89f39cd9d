"""SRV records, queried from a name server on loopback."""

from typing import Any

from twisted.internet import reactor
from twisted.internet.task import Clock
from twisted.names.authority import FileAuthority
from twisted.names.dns import DNSDatagramProtocol, Record_A, Record_SOA, Record_SRV
from twisted.names.server import DNSServerFactory
from twisted.trial.unittest import TestCase

from federation.transport import service_records
from federation.transport.discovery_rules import Service
from federation.transport.service_records import (
    FAILURE_SECONDS,
    NEGATIVE_CACHE_SECONDS,
    ServiceRecords,
    parse_resolv_conf,
)

NAME = "_matrix-fed._tcp.example.org"


class Zone(FileAuthority):
    """The records of one domain, which the test may change."""

    def __init__(self, records: dict[bytes, list[Any]]) -> None:
        self.soa = (b"example.org", Record_SOA(b"ns.example.org", minimum=300, ttl=300))
        self.records = {b"example.org": [self.soa[1]], **records}
        self.looked_up = 0
        super().__init__(None)

    def loadFile(self, filename: Any) -> None:
        """There is none."""

    def _lookup(self, *args: Any, **kwargs: Any) -> Any:
        self.looked_up += 1
        return super()._lookup(*args, **kwargs)  # type: ignore[no-untyped-call]


class ReactorWithClock:
    """The reactor's sockets, and a clock of the test for cache lifetimes."""

    def __init__(self) -> None:
        self.clock = Clock()

    def seconds(self) -> float:
        """Seconds that have passed for the test."""
        return self.clock.seconds()

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


class ServiceRecordTests(TestCase):
    def setUp(self) -> None:
        self.zone = Zone({})
        protocol = DNSDatagramProtocol(DNSServerFactory(authorities=[self.zone]))
        self.port = reactor.listenUDP(  # type: ignore[attr-defined]
            0, protocol, interface="127.0.0.1"
        )
        self.addCleanup(self.port.stopListening)
        number = self.port.getHost().port
        self.world = ReactorWithClock()
        self.records = ServiceRecords(self.world, lambda: [("127.0.0.1", number)])

    async def test_records_are_cached_for_their_lifetime(self) -> None:
        """Name servers get a query as often as they request."""
        self.offer(Record_SRV(10, 5, 8448, b"a.example.org", ttl=600))

        found = await self.records.find(NAME)

        self.assertEqual(found, [Service(10, 5, "a.example.org", 8448)])
        self.offer(Record_SRV(10, 5, 8449, b"b.example.org", ttl=600))
        self.world.clock.advance(599)
        self.assertEqual(await self.records.find(NAME), found)
        self.world.clock.advance(1)
        self.assertEqual(await self.records.find(NAME), [Service(10, 5, "b.example.org", 8449)])

    async def test_a_name_without_records_is_remembered_too(self) -> None:
        """Most servers have none, of either service."""
        self.assertIsNone(await self.records.find(NAME))
        query_count = self.zone.looked_up
        self.assertIsNone(await self.records.find(NAME))
        self.assertEqual(self.zone.looked_up, query_count)

        self.offer(Record_SRV(1, 1, 1, b"a.example.org"))
        self.world.clock.advance(NEGATIVE_CACHE_SECONDS)
        self.assertEqual(len(await self.records.find(NAME) or []), 1)

    async def test_a_name_with_other_records_has_no_service(self) -> None:
        """DNS wildcards answer for every name."""
        self.zone.records[NAME.encode()] = [Record_A("192.0.2.1")]

        self.assertIsNone(await self.records.find(NAME))

    async def test_a_service_that_is_not_offered_is_recognised(self) -> None:
        """RFC 2782: the target is the root."""
        self.offer(Record_SRV(0, 0, 0, b""))

        self.assertEqual(await self.records.find(NAME), [Service(0, 0, ".", 0)])

    async def test_name_servers_that_do_not_answer_count_as_no_record(self) -> None:
        """For a while: federation continues with the default port where DNS is poor."""
        self.patch(service_records, "TIMEOUTS", (0.05,))
        await self.port.stopListening()

        self.assertIsNone(await self.records.find(NAME))
        self.assertIsNone(await self.records.find(NAME))

        self.world.clock.advance(FAILURE_SECONDS)
        self.assertIsNone(await self.records.find(NAME))

    async def test_names_that_dns_cannot_hold_have_no_records(self) -> None:
        """A label has 63 characters at most."""
        self.assertIsNone(await self.records.find(f"_matrix._tcp.{'x' * 100}.example"))

    def offer(self, *records: Record_SRV) -> None:
        """Put records under the name."""
        self.zone.records[NAME.encode()] = list(records)


def test_name_servers_are_those_of_the_machine() -> None:
    """As in resolv.conf(5); without any, one on the machine itself."""
    text = "# nameserver 1.1.1.1\nnameserver 192.0.2.1\n  nameserver\tfe80::1%eth0\nsearch x\n"

    assert parse_resolv_conf(text) == [("192.0.2.1", 53), ("fe80::1", 53)]
    assert parse_resolv_conf("nameserver\n") == [("127.0.0.1", 53)]
