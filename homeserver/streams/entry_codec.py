"""The wire format of log entries: how a process publishes them to others.

An entry is a MessagePack array `[version, tag, [field, …]]`. `tag` names the kind of entry, and
`version` the format of its fields, which is changed whenever they change: so a process recognises
what it cannot read. Each kind is registered with its `EntryKind` at the composition root.

Spec: https://github.com/msgpack/msgpack/blob/master/spec.md
"""

from collections.abc import Callable, Collection, Iterable
from operator import attrgetter
from typing import Any, Generic, TypeVar, get_type_hints

import msgspec

Entry = TypeVar("Entry")
Wire = TypeVar("Wire")

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[int, str, msgspec.Raw]).decode


class UnknownEntry(ValueError):
    """The class of an entry, or its version and tag, is not registered; or bytes are malformed."""


class EntryKind(msgspec.Struct, Generic[Entry, Wire], frozen=True):
    """One kind of log entry and its wire form, which MessagePack must encode as an array.

    A `tag` is never used for another kind, and a `version` never for another format.
    """

    tag: str
    version: int
    entry: type[Entry]
    wire: Any  # the type of the wire form
    to_wire: Callable[[Entry], Wire]
    from_wire: Callable[[Wire], Entry]


def plain_kind(tag: str, version: int, entry: Any) -> EntryKind[Any, tuple[Any, ...]]:
    """The kind of an entry, a struct, whose fields are plain values: they are the wire form."""
    types = get_type_hints(entry)
    names = entry.__struct_fields__
    values: Callable[[Any], Any] = attrgetter(*names)
    return EntryKind(
        tag,
        version,
        entry,
        tuple[tuple(types[name] for name in names)],  # type: ignore[misc]
        values if len(names) > 1 else lambda value: (values(value),),
        lambda wire: entry(*wire),
    )


class EntryCodec:
    """Encodes and decodes the entries of some kinds, which differ in class, and in tag or version.

    Entries are decoded only from other processes of the same server: their events are not checked
    again.
    """

    def __init__(self, kinds: Iterable[EntryKind[Any, Any]]) -> None:
        self._by_class: dict[type, EntryKind[Any, Any]] = {}
        self._readers: dict[tuple[int, str], Callable[[msgspec.Raw], Any]] = {}
        for kind in kinds:
            assert kind.entry not in self._by_class, f"{kind.entry} has one kind"
            assert (kind.version, kind.tag) not in self._readers, f"{kind.tag} names one kind"
            self._by_class[kind.entry] = kind
            self._readers[kind.version, kind.tag] = _reader(kind)

    @property
    def classes(self) -> Collection[type]:
        """The classes of entries that are registered."""
        return self._by_class.keys()

    def encode(self, entry: Any) -> bytes:
        """An entry as bytes. Raises `UnknownEntry`."""
        kind = self._by_class.get(type(entry))
        if kind is None:
            raise UnknownEntry(f"{type(entry)} is not registered")
        return _encode((kind.version, kind.tag, kind.to_wire(entry)))

    def decode(self, data: bytes) -> Any:
        """The entry that was encoded, which shares no object with the original.

        Raises `UnknownEntry`.
        """
        try:
            version, tag, wire = _decode(data)
            read = self._readers.get((version, tag))
            if read is None:
                raise UnknownEntry(f"version {version} of {tag!r} is not registered")
            return read(wire)
        except msgspec.DecodeError as error:
            raise UnknownEntry(str(error)) from error

    def transcode(self, entry: Any) -> Any:
        """The entry as another process sees it."""
        return self.decode(self.encode(entry))


def _reader(kind: EntryKind[Any, Any]) -> Callable[[msgspec.Raw], Any]:
    decode, from_wire = msgspec.msgpack.Decoder(kind.wire).decode, kind.from_wire
    return lambda wire: from_wire(decode(wire))
