"""JSON with lists of elements by different authors, in which each element is decoded alone.

A server passes on what its users and other servers have written. One string with a lone surrogate,
a number out of every range, or lists nested a thousand deep make a decoder reject a whole
transaction, or the whole state of a room. So such lists are declared as `list[msgspec.Raw]`, and if
the whole does not decode, it is split into its elements here, by brackets and quotation marks
alone. `decode_element` decodes the elements. The whole of a request must still be UTF-8 and JSON by
its grammar: no server sends anything else by accident.

Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1sendtxnid
"""

import json
import re
from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from typing import Annotated, Any, TypeVar, get_args, get_origin

import msgspec

T = TypeVar("T")
Parts = Generator[None, None, T]
"""A computation in small parts: it yields between them, and returns its result in the end."""
Raw = bytes | msgspec.Raw

ELEMENTS_A_PART = 64
BYTES_A_PART = 65_536
MAX_TOKENS = 65_536  # brackets and strings of one value: an event has no more bytes
MAX_VALUE = 2 * 1_048_576  # bytes of one value that is not split any further

_SPACE = re.compile(rb"[ \t\n\r]*+")
_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_SCALAR = _STRING + rb"|[-+.\w]++"
_TOKEN = re.compile(_STRING + rb'|[\[\]{}"]', re.DOTALL)


def _nested(levels: int) -> bytes:
    """A pattern for a list or an object with so many levels in it; it does not backtrack."""
    inner = rb'[^\[\]{}"]++|' + _STRING
    pattern = rb"[\[{](?:" + inner + rb")*+[\]}]"
    for _ in range(levels):
        pattern = rb"[\[{](?:" + inner + rb"|" + pattern + rb")*+[\]}]"
    return pattern


_SHALLOW = re.compile(_nested(8) + rb"|" + _SCALAR, re.DOTALL)
_ELEMENT = re.compile(
    rb"(" + _SHALLOW.pattern + rb")" + _SPACE.pattern + rb"([],])" + _SPACE.pattern, re.DOTALL
)


class NotJsonText(ValueError):
    """A text that is not UTF-8, or not JSON by its grammar."""


class BadElement(ValueError):
    """An element is not a value that this server can represent, even if it is JSON."""


def decode_element(raw: Raw, kind: Any = Any) -> Any:
    """The value of one element as a type. Raises `BadElement`."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadElement(str(error)) from None


def decode_or_none(raw: Raw, kind: Any = Any) -> Any:
    """The value of one element as a type; `None` if it is not of this type."""
    try:
        return decode_element(raw, kind)
    except BadElement:
        return None


def decodable(elements: Iterable[Raw], kind: Any = Any) -> Iterator[Any]:
    """The values of those elements that are of a type."""
    for raw in elements:
        try:
            yield decode_element(raw, kind)
        except BadElement:
            continue


def decode_anyhow(raw: Raw) -> Any:
    """The lenient value of an element that does not decode, to find its author; else `None`.

    Strings may have lone surrogates in it, and numbers may be infinite.
    """
    try:
        return json.loads(bytes(raw).decode())
    except (ValueError, RecursionError):
        return None


def decoding(
    kind: type[T] | Any, text: bytes, *, at_once: int = 1 << 62, is_strict: bool = False
) -> Parts[T]:
    """Decode a text as a `Struct` whose members of type `list[msgspec.Raw]` hold such elements.

    `kind` may also be a `tuple` with such a struct, or `dict[str, msgspec.Raw]`. A text longer than
    `at_once` bytes is always decoded in parts, if its type has any. `msgspec.Meta(max_length=…)` of
    a list bounds its number of elements. With `is_strict` the whole text must be UTF-8 and JSON by
    its grammar, not only the parts that are used.

    Raises `msgspec.ValidationError` for another shape, and `NotJsonText`.
    """
    if is_strict:
        check_utf8(text)
    has_elements = _has_elements(kind)
    if len(text) <= at_once or not has_elements:
        try:
            decoded: T = msgspec.json.decode(text, type=kind)
        except msgspec.ValidationError:
            if is_strict:
                # The decoder stops at the first wrong type: the rest may not be JSON at all.
                check_grammar(text)
            raise
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            if not has_elements:
                raise NotJsonText(str(error)) from None
        else:
            return decoded
    cutter = _Cutter(text, is_strict=is_strict)
    result: T = yield from cutter.value(kind)
    cutter.end()
    return result


def decode_apart(kind: type[T] | Any, raw: Raw) -> T:
    """Decode one small text with such lists synchronously. Raises `BadElement`."""
    parts: Parts[T] = decoding(kind, bytes(raw))
    try:
        while True:
            next(parts)
    except StopIteration as stop:
        result: T = stop.value
        return result
    except (msgspec.ValidationError, NotJsonText) as error:
        raise BadElement(str(error)) from None


def check_utf8(text: bytes) -> None:
    """Raise `NotJsonText` for a text that is not UTF-8 throughout."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise NotJsonText(f"invalid UTF-8 at byte {error.start}") from None


def check_grammar(text: Raw) -> None:
    """Raise `NotJsonText` for a text that breaks JSON's grammar, unless it is nested too deeply."""
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        _check_slowly(bytes(text))


def _check_slowly(text: bytes) -> None:
    try:
        json.loads(text.decode(), parse_constant=_refuse)
    except RecursionError:
        return
    except ValueError as error:
        # Python limits the length of integers; the grammar does not.
        if isinstance(error, json.JSONDecodeError | UnicodeDecodeError | NotJsonText):
            raise NotJsonText(str(error)) from None


def _decode_value(kind: Any, raw: Raw) -> Any:
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        check_grammar(raw)
        raise msgspec.ValidationError(str(error)) from None


def _check_element(raw: Raw) -> None:
    try:
        decode_element(raw)
    except BadElement:
        check_grammar(raw)


def _has_elements(kind: Any) -> bool:
    if get_origin(kind) is tuple:
        return any(map(_has_elements, get_args(kind)))
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        fields = msgspec.structs.fields(kind)
        return any(_most_elements(field.type) is not None for field in fields)
    return bool(kind == dict[str, msgspec.Raw])


def _most_elements(kind: Any) -> int | None:
    """The maximum number of elements of a list of `Raw`; `None` for all other types."""
    most = 1 << 62
    if type(None) in get_args(kind):
        kind = next(each for each in get_args(kind) if each is not type(None))
    if get_origin(kind) is Annotated:
        kind, *notes = get_args(kind)
        bounds = [note.max_length for note in notes if isinstance(note, msgspec.Meta)]
        most = min((each for each in bounds if each is not None), default=most)
    if get_origin(kind) is list and get_args(kind) == (msgspec.Raw,):
        return most
    return None


def _refuse(word: str) -> None:
    raise NotJsonText(f"{word} is not JSON")


class _Cutter:
    """A cursor that moves over a text once, from value to value."""

    def __init__(self, text: bytes, *, is_strict: bool) -> None:
        self._text = text
        self._is_strict = is_strict
        self._place = 0
        self._skip_space()

    def value(self, kind: Any) -> Parts[Any]:
        """The next value, of a type as in `decoding`."""
        if get_origin(kind) is tuple:
            return (yield from self._tuple(get_args(kind)))
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return (yield from self._struct(kind))
        if kind == dict[str, msgspec.Raw]:
            return self._object()
        return _decode_value(kind, self._next())

    def end(self) -> None:
        """Check that nothing follows."""
        if self._place != len(self._text):
            raise NotJsonText("something follows the JSON")

    def _tuple(self, kinds: tuple[Any, ...]) -> Parts[tuple[Any, ...]]:
        values: list[Any] = []
        for _ in self._each(b"[", b"]", "array"):
            if len(values) == len(kinds):
                break
            values.append((yield from self.value(kinds[len(values)])))
        else:
            if len(values) == len(kinds):
                return tuple(values)
        raise msgspec.ValidationError(f"Expected `array` of length {len(kinds)}")

    def _struct(self, kind: type[msgspec.Struct]) -> Parts[Any]:
        fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        values: dict[str, Any] = {}
        for _ in self._each(b"{", b"}", "object"):
            field = fields.get(self._name())
            most = None if field is None else _most_elements(field.type)
            if field is None:
                self._check(self._next())
            elif most is not None and self._is_at(b"["):
                values[field.name] = yield from self._elements(field.encode_name, most)
            else:
                values[field.name] = _decode_value(field.type, self._next())
            yield
        for name, field in fields.items():
            if field.required and field.name not in values:
                raise msgspec.ValidationError(f"Object missing required field `{name}`")
        return kind(**values)

    def _object(self) -> dict[str, msgspec.Raw]:
        found: dict[str, msgspec.Raw] = {}
        for _ in self._each(b"{", b"}", "object"):
            name = self._name()
            found[name] = msgspec.Raw(self._next())
        return found

    def _elements(self, name: str, most: int) -> Parts[list[msgspec.Raw]]:
        found: list[msgspec.Raw] = []
        size = 0
        for raw in self._raws():
            if len(found) == most:
                raise msgspec.ValidationError(
                    f"Expected `array` of length <= {most} - at `$.{name}`"
                )
            self._check(raw)
            found.append(msgspec.Raw(raw))
            size += len(raw)
            if len(found) % ELEMENTS_A_PART == 0 or size > BYTES_A_PART:
                size = 0
                yield
        return found

    def _raws(self) -> Iterator[bytes]:
        """The texts of the elements of a list; most of them match a single pattern."""
        for _ in self._each(b"[", b"]", "array"):
            while match := _ELEMENT.match(self._text, self._place, self._place + MAX_VALUE):
                if match[2] == b"]":
                    break
                self._place = match.end()
                yield match[1]
            yield self._next()

    def _check(self, raw: bytes) -> None:
        if self._is_strict:
            _check_element(raw)

    def _each(self, opening: bytes, closing: bytes, shape: str) -> Iterator[None]:
        """Stop before each member of a list or an object; the caller must move past it."""
        if not self._is_at(opening):
            self._next()
            raise msgspec.ValidationError(f"Expected `{shape}`")
        self._pass()
        is_first = True
        while not (is_first and self._is_at(closing)):
            yield
            is_first = False
            if self._is_at(closing):
                break
            if not self._is_at(b","):
                raise NotJsonText("a comma is missing")
            self._pass()
        self._pass()

    def _name(self) -> str:
        name = decode_anyhow(self._next())
        if not isinstance(name, str) or not self._is_at(b":"):
            raise NotJsonText("a member has no name")
        self._pass()
        return name

    def _next(self) -> bytes:
        """Return the next value as text."""
        start = self._place
        self._place = _end_of_value(self._text, start)
        raw = self._text[start : self._place]
        self._skip_space()
        return raw

    def _is_at(self, sign: bytes) -> bool:
        return self._text[self._place : self._place + 1] == sign

    def _pass(self) -> None:
        """Move past one character."""
        self._place += 1
        self._skip_space()

    def _skip_space(self) -> None:
        match = _SPACE.match(self._text, self._place)
        assert match is not None
        self._place = match.end()


def _end_of_value(text: bytes, start: int) -> int:
    """The end of the value that begins at `start`."""
    most = start + MAX_VALUE
    whole = _SHALLOW.match(text, start, most)
    if whole is not None:
        return whole.end()
    if text[start : start + 1] not in (b"[", b"{"):
        raise NotJsonText("a value is missing")
    depth = 0
    for token in islice(_TOKEN.finditer(text, start, most), MAX_TOKENS):
        sign = token[0]
        if sign in (b"[", b"{"):
            depth += 1
        elif sign in (b"]", b"}"):
            depth -= 1
            if depth == 0:
                return token.end()
        elif sign == b'"':
            break
    raise NotJsonText("a string, a list or an object does not end, or is too large")
