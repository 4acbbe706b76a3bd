"""Answers in memory, each tenant's apart. Where there is no room for all, whoever has most makes room."""

from collections import OrderedDict
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final, NamedTuple

SPARE_MARKS: Final = 1024
"""Marks that say nothing any more and are kept until it is worth tidying up."""


class _Kept(NamedTuple):
    data: bytes
    until_unix_s: float
    size: int


class AnswerShelf:
    """Bytes with an end, by tenant and name, within a bound of size for all together.

    What has ended goes first. Then the tenant that has most gives away what it did not look at longest. So nobody who
    has no more than an equal share loses anything to another, and where nobody else wants any of it one may have all.

    Args:
        size_max: Of all of them together.
    """

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._size = 0
        self._count = 0
        self._tenants: dict[str, OrderedDict[str, _Kept]] = {}
        self._sizes: dict[str, int] = {}
        # Two heaps. What they say may be out of date, and is looked up before it is believed; a tenant never has more
        # than one of its marks says.
        self._largest: list[tuple[int, str]] = []
        self._ends: list[tuple[float, str, str]] = []

    def get(self, tenant: str, name: str, unix_s: float) -> bytes | None:
        """What is there and has not ended."""
        theirs = self._tenants.get(tenant)
        found = None if theirs is None else theirs.get(name)
        if theirs is None or found is None:
            return None
        if unix_s >= found.until_unix_s:
            self.drop(tenant, name)
            return None
        theirs.move_to_end(name)
        return found.data

    def put(self, tenant: str, name: str, data: bytes, *, size: int, until_unix_s: float, unix_s: float) -> None:
        """Keep it instead of what was there, if there is room."""
        self.drop(tenant, name)
        if size > self._size_max:
            return
        self._drop_ended(unix_s)
        self._tenants.setdefault(tenant, OrderedDict())[name] = _Kept(data, until_unix_s, size)
        self._sizes[tenant] = total = self._sizes.get(tenant, 0) + size
        self._size += size
        self._count += 1
        heappush(self._ends, (until_unix_s, tenant, name))
        heappush(self._largest, (-total, tenant))
        while self._size > self._size_max:
            self._make_room()
        self._tidy_up()

    def drop(self, tenant: str, name: str) -> None:
        """Forget it."""
        theirs = self._tenants.get(tenant)
        found = None if theirs is None else theirs.pop(name, None)
        if theirs is None or found is None:
            return
        self._size -= found.size
        self._count -= 1
        self._sizes[tenant] -= found.size
        if not theirs:
            del self._tenants[tenant], self._sizes[tenant]

    def _drop_ended(self, unix_s: float) -> None:
        while self._ends and self._ends[0][0] <= unix_s:
            until_unix_s, tenant, name = heappop(self._ends)
            theirs = self._tenants.get(tenant)
            found = None if theirs is None else theirs.get(name)
            if found is not None and found.until_unix_s == until_unix_s:
                self.drop(tenant, name)

    def _make_room(self) -> None:
        """Have the tenant that has most give away one."""
        while True:
            said, tenant = self._largest[0]
            size = self._sizes.get(tenant, 0)
            if size == -said:
                self.drop(tenant, next(iter(self._tenants[tenant])))
                return
            if size:
                heapreplace(self._largest, (-size, tenant))
            else:
                heappop(self._largest)

    def _tidy_up(self) -> None:
        if len(self._largest) > 2 * len(self._sizes) + SPARE_MARKS:
            self._largest = [(-size, tenant) for tenant, size in self._sizes.items()]
            heapify(self._largest)
        if len(self._ends) > 2 * self._count + SPARE_MARKS:
            self._ends = [
                (one.until_unix_s, tenant, name)
                for tenant, theirs in self._tenants.items()
                for name, one in theirs.items()
            ]
            heapify(self._ends)
