"""An OpenTelemetry collector on a real socket: takes OTLP over http and decodes it by the standard's own types."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass
class Collector:
    """What came so far."""

    url: str = ""
    status: int = 200
    hang: bool = False
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    spans: list[Any] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, list[Any]] = field(default_factory=dict)
    asked: int = 0
    talks: list[Any] = field(default_factory=list)

    async def until(self, count: int, timeout_s: float = 15.0) -> list[Any]:
        """Wait for so many spans."""
        async with asyncio.timeout(timeout_s):
            while len(self.spans) < count:  # noqa: ASYNC110  # nobody tells
                await asyncio.sleep(0.02)
        return self.spans

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.talks.append(asyncio.current_task())
        try:
            while line := await reader.readline():
                path = line.split()[1].decode()
                headers = {}
                while line := (await reader.readline()).strip():
                    name, _, value = line.decode().partition(":")
                    headers[name.lower()] = value.strip()
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.asked += 1
                if self.hang:
                    await asyncio.sleep(3600)
                if self.status == 200:
                    self._take(path, headers, body)
                writer.write(b"HTTP/1.1 %d Told\r\ncontent-length: 0\r\n\r\n" % self.status)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # nobody else waits for this task
        finally:
            writer.close()

    def _take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        data = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
        self.headers.append(headers)
        self.bodies.append(data)
        if path == "/v1/traces":
            for one in ExportTraceServiceRequest.FromString(data).resource_spans:
                self.resources.append(attributes(one.resource))
                self.spans += [span for scope in one.scope_spans for span in scope.spans]
        else:
            assert path == "/v1/metrics", path
            for one in ExportMetricsServiceRequest.FromString(data).resource_metrics:
                for metric in (metric for scope in one.scope_metrics for metric in scope.metrics):
                    self.metrics[metric.name] = list(metric.histogram.data_points)


def attributes(thing: Any) -> dict[str, Any]:
    """Attributes of a span, a resource or a data point."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in thing.attributes}


@asynccontextmanager
async def collector() -> AsyncIterator[Collector]:
    """One that listens while the block runs."""
    taken = Collector()
    server = await asyncio.start_server(taken.serve, "127.0.0.1", 0)
    taken.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield taken
    finally:
        server.close()
        for talk in taken.talks:
            talk.cancel()
        await asyncio.gather(*taken.talks)
