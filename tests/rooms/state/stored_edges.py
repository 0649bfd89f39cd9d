"""A fake of the table of auth edges, by the definitions of its queries."""

from collections.abc import Collection
from typing import TypeVar

from homeserver.storage.database.batch import Batch
from homeserver.storage.rooms.auth_edges import INSERT_AUTH_EDGES

T = TypeVar("T")


class StoredEdges:
    """Which events each event cites, by numbers; counts the rows that are read."""

    def __init__(self, graph: dict[int, list[int]] | None = None) -> None:
        self.graph: dict[int, list[int]] = {}
        self.citing: dict[int, list[int]] = {}
        self.rows_read = 0
        self.statements = 0
        for event, cited in (graph or {}).items():
            self.add(event, cited)

    def add(self, event: int, cited: Collection[int]) -> None:
        self.graph[event] = list(cited)
        for each in cited:
            self.citing.setdefault(each, []).append(event)

    def write(self, batch: Batch) -> None:
        """Take the edges out of a batch of the log."""
        for number, cited in batch._rows.get(INSERT_AUTH_EDGES, {}).values():
            assert number is not None
            assert cited is not None
            numbers = bytes(cited).decode().strip("{}").split(",")
            self.add(int.from_bytes(number), [int(each) for each in numbers])

    def auth_edges(
        self, events: Collection[int], limit: int, lowest: int = 0
    ) -> list[tuple[int, list[int]]]:
        walked = dict.fromkeys(events)
        waiting = list(walked)
        for event in waiting:
            if len(waiting) >= limit:
                break
            for each in self.graph.get(event, ()):
                if each >= lowest and each not in walked:
                    walked[each] = None
                    waiting.append(each)
        return self._read([(event, self.graph.get(event, [])) for event in waiting[:limit]])

    def citing_events(self, events: Collection[int], limit: int) -> list[tuple[int, int]]:
        rows: list[tuple[int, int]] = []
        for event in events:
            found = dict.fromkeys(self.citing.get(event, ()))
            waiting = list(found)
            for other in waiting:
                if len(waiting) >= limit:
                    break
                fresh = [each for each in self.citing.get(other, ()) if each not in found]
                found.update(dict.fromkeys(fresh))
                waiting += fresh
            rows += [(event, each) for each in waiting[:limit]]
        return self._read(rows)

    def _read(self, rows: list[T]) -> list[T]:
        self.statements += 1
        self.rows_read += len(rows)
        return rows
