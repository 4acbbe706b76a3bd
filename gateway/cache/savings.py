"""How often answers were given again, and what that saved: by the hour, key, Route and Model, until it is stored."""

from collections.abc import Iterable, Sequence
from typing import Final

from gateway.state.cache_rows import CacheRow

HOUR_S: Final = 3600
ROWS_MAX: Final = 10_000
"""Hours, keys, Routes and Models that wait to be stored; what is saved for more of them is not counted."""


class Savings:
    """What waits to be stored."""

    def __init__(self) -> None:
        self.dropped = 0
        """Answers whose savings there was no room for."""
        self._waiting: dict[tuple[int, str, str, str], CacheRow] = {}

    def add(self, row: CacheRow) -> None:
        """Count it."""
        key = (row.hour, row.key_id, row.route, row.model)
        before = self._waiting.get(key)
        if before is not None:
            row = CacheRow(*key, row.hits + before.hits, row.saved_in_nusd + before.saved_in_nusd)
        elif len(self._waiting) >= ROWS_MAX:
            self.dropped += row.hits
            return
        self._waiting[key] = row

    def add_hit(self, unix_s: float, key_id: str, route: str, model: str, saved_in_nusd: int) -> None:
        """An answer was given again at that time."""
        self.add(CacheRow(int(unix_s // HOUR_S), key_id, route, model, 1, saved_in_nusd))

    def take(self) -> Sequence[CacheRow]:
        """All that waits. What cannot be stored is given back with `put_back`."""
        rows = tuple(self._waiting.values())
        self._waiting = {}
        return rows

    def put_back(self, rows: Iterable[CacheRow]) -> None:
        """Let it wait again."""
        for row in rows:
            self.add(row)
