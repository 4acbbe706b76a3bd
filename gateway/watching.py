"""What watches a gateway at work, put together: the meter, and whoever else is told when something is over."""

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from gateway.config.catalogue import GatewaySettings
from gateway.engine import Engine
from gateway.explain.trace import Sink, Trace
from gateway.ledger.books import Books
from gateway.logs import adopt
from gateway.metrics.exposition import render
from gateway.metrics.families import Sample, Told
from gateway.metrics.gauges import Sources, read_gauges
from gateway.metrics.meter import Meter
from gateway.request_log import RequestLog
from gateway.state.store import Store
from gateway.trace_context import Propagator
from gateway.tracing.export import Exporter, open_exporter
from gateway.workers.post import Post

_ROWS: Final = dict[str, list[Sample]]


class Watching:
    """One for the life of a gateway.

    Args:
        sources: What others count anyway.
    """

    def __init__(self, sources: Sources) -> None:
        self._sources: Final = sources
        self.meter: Final = Meter()
        self.store: Store | None = None
        """Where records go in the end."""
        self._exporter: Exporter | None = None
        self._lines: RequestLog | None = None
        self.post: Post[Any] | None = None
        """Where this is one of several workers: its way to the others."""

    async def begin(self, engine: Engine, store: Store, books: Books, settings: GatewaySettings) -> None:
        """Be told of what is over from now on.

        Raises:
            ConfigError: Traces are wanted, and the library for that is not installed.
        """
        adopt(settings.log)
        self.store = store
        sinks: list[Sink] = []
        books.on_settled = self.meter.settled
        if settings.log.requests:
            self._lines = RequestLog()
            self._lines.start()
            sinks.append(self._lines)
        telemetry = settings.telemetry
        if telemetry is not None:
            exporter = self._exporter = await asyncio.to_thread(open_exporter, telemetry)
            exporter.start()
            sinks.append(exporter)
            engine.propagator = Propagator(telemetry.sample)
        engine.sink = _Sinks(store, self.meter, sinks)

    async def end(self) -> None:
        """Write and export what is left."""
        if self._lines is not None:
            await asyncio.to_thread(self._lines.close)
        if self._exporter is not None:
            await asyncio.to_thread(self._exporter.close)

    @property
    def telemetry_dropped(self) -> int:
        """Requests whose traces were not exported."""
        return 0 if self._exporter is None else self._exporter.dropped

    async def read(self) -> Callable[[str], tuple[bytes, str]]:
        """All figures now; what is given puts them into words, in any thread."""
        own = Told("", os.getpid(), self._read_own())
        others = [] if self.post is None else await self.post.figures()
        told = [
            Told(one.name.partition("-")[0], one.pid, msgspec.msgpack.decode(one.rows, type=_ROWS)) for one in others
        ]
        return lambda accept: render(told or [own], accept)

    def share(self, post: Post[Any]) -> None:
        """Show all workers' figures, as one, to whoever asks any of them."""
        self.post = post
        post.show(self._read_own)

    def _read_own(self) -> dict[str, list[Sample]]:
        reading: dict[str, list[Sample]] = {}
        for family, sample in (*self.meter.read(), *read_gauges(self._sources)):
            reading.setdefault(family.name, []).append(sample)
        return reading


class _Sinks:
    """The store, the meter and other sinks as one; what the store says counts."""

    __slots__ = ("_meter", "_others", "_store")

    def __init__(self, store: Store, meter: Meter, others: Sequence[Sink]) -> None:
        self._store = store
        self._meter = meter
        self._others = tuple(others)

    def put(self, record: Trace, /) -> bool:
        self._meter.put(record)
        for one in self._others:
            one.put(record)
        return self._store.put(record)
