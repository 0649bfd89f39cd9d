"""Names as small integers: user ids, event types and state keys, each stored once.

Owns the table `names` (migrations/0001_base.sql). A name keeps its number ("nid") permanently, so
the cache is never stale, and any number of processes may create names at the same time.
"""

from collections.abc import Iterable

from homeserver.concurrency.lru_cache import LruCache
from homeserver.storage.database.database import Connection, Database

ESCAPE = "\x1a"  # SUBSTITUTE; \x1a0 stands for NUL, \x1a1 for itself


class Names:
    """A translator between names and nids, with a cache of the `capacity` most recently used.

    PostgreSQL stores any text but NUL and lone surrogates. Other servers may use NUL in event types
    and state keys, so it is escaped in the table; for lone surrogates, which no event can have,
    `nid` and `nids` raise `ValueError`, and `find_nids` finds nothing.
    """

    def __init__(self, db: Database, capacity: int = 100_000) -> None:
        self._db = db
        self._nids: LruCache[str, int] = LruCache("names", capacity, on_evict=self._forget)
        self._names: dict[int, str] = {}  # the inverse of `_nids`, always

    def cached_nid(self, name: str) -> int | None:
        """The nid of a name, if it is in the cache."""
        return self._nids.get(name)

    def cached_name(self, nid: int) -> str | None:
        """The name of a nid, if it is in the cache."""
        name = self._names.get(nid)
        if name is not None:
            self._nids.touch(name)
        return name

    async def nid(self, name: str) -> int:
        """The nid of a name, created if there is none."""
        cached = self.cached_nid(name)
        if cached is not None:
            return cached
        return (await self.nids((name,)))[name]

    async def nids(self, names: Iterable[str]) -> dict[str, int]:
        """The nids of names, created for those that have none."""
        found, missing = self._cached_nids(names)
        if missing:
            if not all(map(is_storable, missing)):
                raise ValueError("a name cannot hold a lone surrogate")
            found |= self._remember(await self._db.run(intern_names, missing))
        return found

    async def find_nids(self, names: Iterable[str]) -> dict[str, int]:
        """The nids of those of the names that have one."""
        found, missing = self._cached_nids(names)
        storable = [name for name in missing if is_storable(name)]
        if storable:
            found |= self._remember(await self._db.run(find_nids, storable))
        return found

    async def find_nid(self, name: str) -> int | None:
        """The nid of a name, or None if it has none."""
        return (await self.find_nids((name,))).get(name)

    async def name(self, nid: int) -> str:
        """The name of a nid; raises `KeyError` if there is none."""
        cached = self.cached_name(nid)
        if cached is not None:
            return cached
        return (await self.names((nid,)))[nid]

    async def names(self, nids: Iterable[int]) -> dict[int, str]:
        """The names of nids; nids that do not exist are left out."""
        found: dict[int, str] = {}
        missing: list[int] = []
        for nid in nids:
            name = self.cached_name(nid)
            if name is None:
                missing.append(nid)
            else:
                found[nid] = name
        if missing:
            loaded = self._remember(await self._db.run(find_names, missing))
            found |= {nid: name for name, nid in loaded.items()}
        return found

    def _cached_nids(self, names: Iterable[str]) -> tuple[dict[str, int], list[str]]:
        found: dict[str, int] = {}
        missing: dict[str, None] = {}
        for name in names:
            nid = self.cached_nid(name)
            if nid is None:
                missing[name] = None
            else:
                found[name] = nid
        return found, list(missing)

    def _remember(self, loaded: dict[str, int]) -> dict[str, int]:
        for name, nid in loaded.items():
            self._names[nid] = name
            self._nids.put(name, nid)
        return loaded

    def _forget(self, name: str, nid: int) -> None:
        del self._names[nid]


def is_storable(name: str) -> bool:
    """Whether the table can store a name: UTF-8 lacks lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


async def intern_names(db: Connection, names: list[str]) -> dict[str, int]:
    """The nids of names, creating those that are missing; at most two statements.

    The names are inserted in sorted order, so that two transactions that create the same names wait
    for each other instead of deadlocking.
    """
    found = await find_nids(db, names)
    missing = sorted(set(names) - found.keys())
    if missing:
        await db.execute(
            """
            INSERT INTO names (name)
            SELECT name FROM unnest(%s::text[]) WITH ORDINALITY AS new (name, place)
             ORDER BY place
                ON CONFLICT (name) DO NOTHING
            """,
            ([_escape(name) for name in missing],),
        )
        # The insert does not return names that another transaction has just created: look them up.
        found |= await find_nids(db, missing)
    return found


async def find_nids(db: Connection, names: list[str]) -> dict[str, int]:
    """The nids of those of the names that have one."""
    cursor = await db.execute(
        "SELECT name, nid FROM names WHERE name = ANY(%s::text[])",
        ([_escape(name) for name in names],),
        binary=True,
    )
    return {_unescape(name): nid for name, nid in await cursor.fetchall()}


async def find_names(db: Connection, nids: list[int]) -> dict[str, int]:
    """The names of those of the nids that exist, as `{name: nid}`."""
    cursor = await db.execute(
        "SELECT name, nid FROM names WHERE nid = ANY(%s::int4[])", (nids,), binary=True
    )
    return {_unescape(name): nid for name, nid in await cursor.fetchall()}


def _escape(name: str) -> str:
    """A name as stored: without NUL, which the column type cannot hold."""
    if "\0" not in name and ESCAPE not in name:
        return name
    return name.replace(ESCAPE, f"{ESCAPE}1").replace("\0", f"{ESCAPE}0")


def _unescape(stored: str) -> str:
    if ESCAPE not in stored:
        return stored
    return stored.replace(f"{ESCAPE}0", "\0").replace(f"{ESCAPE}1", ESCAPE)
