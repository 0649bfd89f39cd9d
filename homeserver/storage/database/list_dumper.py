"""Parameters that are lists of integers or of texts, which most statements for many rows have.

psycopg looks at each element of a list to find its type, dumps it, and looks whether it is to be
quoted. That takes as long as PostgreSQL needs for the rows. In a list of plain integers, or of
texts, the least and the greatest element have the type of all, and all are dumped at once. The
result means the same to PostgreSQL.

Source: https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO
"""

from typing import Any

from psycopg.adapt import PyFormat
from psycopg.types.array import BaseListDumper, ListDumper

LONG = 6  # elements, from which on this is faster
_SPECIAL = '"\\\0'  # within quotes, the first two need an escape; PostgreSQL stores no NUL


class UniformListDumper(ListDumper):
    """Dumps lists; those of plain integers and of plain texts without looking at each element."""

    def get_key(self, obj: list[Any], format: PyFormat) -> Any:  # noqa: A002
        """The key by which psycopg remembers the dumper of such a list."""
        return super().get_key(_sample(obj), format)

    def upgrade(self, obj: list[Any], format: PyFormat) -> BaseListDumper:  # noqa: A002
        """The dumper of such a list."""
        return super().upgrade(_sample(obj), format)

    def dump(self, obj: list[Any]) -> Any:
        """The list as PostgreSQL's text format has it; raises what psycopg's own dumper does."""
        kind = _kind(obj) if len(obj) >= LONG else None
        if kind is int:
            return b"{%b}" % ",".join(map(str, obj)).encode()
        if kind is str:
            whole = "".join(obj)
            if not any(special in whole for special in _SPECIAL):
                return b'{"%b"}' % '","'.join(obj).encode()
        return super().dump(obj)


def _kind(obj: list[Any]) -> type | None:
    """The type of all elements, if it is `int` or `str` exactly."""
    kinds = set(map(type, obj))
    if len(kinds) == 1:
        kind: type = kinds.pop()
        if kind is int or kind is str:
            return kind
    return None


def _sample(obj: list[Any]) -> list[Any]:
    """A shorter list whose dumper is that of the whole list."""
    kind = _kind(obj) if len(obj) >= LONG else None
    if kind is int:
        return [min(obj), max(obj)]
    return obj[:1] if kind is str else obj
