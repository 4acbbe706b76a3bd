"""Where spans and metrics go: OTLP over http, in OpenTelemetry's own protobuf types. Importing this imports them."""

import gzip
import logging
import os
import threading
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Final, TypeAlias

from gateway.attempts import Attempt
from gateway.explain.trace import Trace
from gateway.trace_context import TraceContext
from gateway.tracing.spans import ERROR_TYPE, SERVER_ADDRESS, SERVER_PORT, SpanMaker, names_of, number, place_of, text

Key: TypeAlias = tuple[str, str, str]
"""Endpoint, what became of it, and of what the tokens are."""
SCOPE: Final = "mixgate"
TRIES_MAX: Final = 3
"""Of one export, where the collector is busy or cannot be reached."""
RETRY_WAIT_S: Final = 0.5
"""Before the second; it doubles."""
KEYS_MAX: Final = 4096
"""Kinds of Attempts that are told apart in the metrics."""
GZIP_LEVEL: Final = 1
TOKEN_BOUNDS: Final = tuple(4**power for power in range(14))
DURATION_BOUNDS_S: Final = tuple(0.01 * 2**power for power in range(14))
"""Both as the conventions recommend."""
_RETRYABLE: Final = frozenset({429, 502, 503, 504})
_UNIX_NS_PER_S: Final = 10**9
# The generated modules have no types, nor does the HTTP client that the exporter package brings.
_requests: Final[Any] = import_module("requests")
_resource: Final[Any] = import_module("opentelemetry.proto.resource.v1.resource_pb2")
_common: Final[Any] = import_module("opentelemetry.proto.common.v1.common_pb2")
_trace: Final[Any] = import_module("opentelemetry.proto.trace.v1.trace_pb2")
_metrics: Final[Any] = import_module("opentelemetry.proto.metrics.v1.metrics_pb2")
_trace_service: Final[Any] = import_module("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
_metrics_service: Final[Any] = import_module("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2")
_gen_ai: Final[Any] = import_module("opentelemetry.semconv._incubating.attributes.gen_ai_attributes")
_names: Final[Any] = import_module("opentelemetry.semconv._incubating.metrics.gen_ai_metrics")
_KIND: Final[str] = _gen_ai.GEN_AI_TOKEN_TYPE
_SCOPE: Final[Any] = _common.InstrumentationScope(name=SCOPE)

_log = logging.getLogger("mixgate.tracing")


def resource_of(version: str) -> Any:
    """Who speaks. OTEL_RESOURCE_ATTRIBUTES adds to it."""
    resource: Any = import_module("opentelemetry.sdk.resources").Resource
    found: Mapping[str, Any] = resource.create({"service.name": "mixgate", "service.version": version}).attributes
    return _resource.Resource(attributes=[text(key, str(value)) for key, value in found.items()])


class Post:
    """Sends exports to one URL. Follows no redirect and asks no proxy: its headers are for the configured place alone.

    Of the environment nothing counts, but where the certificates of authorities are.
    """

    def __init__(self, url: str, headers: Mapping[str, str], timeout_s: float) -> None:
        self._url = url
        self._headers = {**headers, "content-type": "application/x-protobuf", "content-encoding": "gzip"}
        self._timeout_s = timeout_s
        self._closed = threading.Event()
        self._session: Any = _requests.Session()
        # Else HTTP_PROXY would be shown the headers, and an entry in ~/.netrc would take the place of ours.
        self._session.trust_env = False
        bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
        if bundle:
            self._session.verify = bundle

    def send(self, body: bytes) -> bool:
        """Whether it was taken. Blocks."""
        data, wait_s = gzip.compress(body, GZIP_LEVEL), RETRY_WAIT_S
        for last in (*[False] * (TRIES_MAX - 1), True):
            try:
                answer = self._session.post(
                    self._url, data=data, headers=self._headers, timeout=self._timeout_s, allow_redirects=False
                )
                status: int = answer.status_code
            except _requests.RequestException as error:
                _log.debug("%s cannot be reached: %s", self._url, type(error).__name__)
                status = 503
            if 200 <= status < 300:
                return True
            if last or status not in _RETRYABLE or self._closed.wait(wait_s):
                break
            wait_s *= 2
        return False

    def close(self) -> None:
        """Try nothing again. Any thread."""
        self._closed.set()


class OtlpSpans:
    """Where spans go."""

    def __init__(self, post: Post, resource: Any) -> None:
        self._post = post
        self._resource = resource
        self._maker = SpanMaker()

    def export(self, sampled: Sequence[tuple[Trace, TraceContext]]) -> bool:
        """Whether they were taken."""
        spans = [span for trace, context in sampled for span in self._maker.spans_of(trace, context)]
        scoped = _trace.ScopeSpans(scope=_SCOPE, spans=spans)
        of_us = _trace.ResourceSpans(resource=self._resource, scope_spans=[scoped])
        return self._post.send(_trace_service.ExportTraceServiceRequest(resource_spans=[of_us]).SerializeToString())

    def close(self) -> None:
        """Give up what is being tried."""
        self._post.close()


class _Spread:
    """A histogram that grows, and of what."""

    __slots__ = ("attributes", "counts", "total")

    def __init__(self, attributes: list[Any], bounds: Sequence[float]) -> None:
        self.attributes = attributes
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0


class OtlpCounts:
    """Where metrics go: how many tokens, and how long, for each kind of Attempt. For one thread."""

    def __init__(self, post: Post, resource: Any, unix_time_s: Callable[[], float]) -> None:
        self._post = post
        self._resource = resource
        self._unix_time_s = unix_time_s
        self._began_ns = int(unix_time_s() * _UNIX_NS_PER_S)
        self._durations: dict[Key, _Spread] = {}
        self._tokens: dict[Key, _Spread] = {}

    def note(self, trace: Trace) -> None:
        """Count what a request used."""
        for attempt in trace.attempts:
            _add(self._durations, attempt, "", attempt.duration_s, DURATION_BOUNDS_S)
            usage = attempt.usage
            if usage is not None:
                if usage.input_tokens is not None:
                    _add(self._tokens, attempt, "input", usage.input_tokens, TOKEN_BOUNDS)
                if usage.output_tokens is not None:
                    _add(self._tokens, attempt, "output", usage.output_tokens, TOKEN_BOUNDS)

    def flush(self) -> bool:
        """Export them, since the start. Whether they were taken; blocks."""
        now_ns = int(self._unix_time_s() * _UNIX_NS_PER_S)
        metrics = [
            self._metric(_names.GEN_AI_CLIENT_OPERATION_DURATION, "s", self._durations, DURATION_BOUNDS_S, now_ns),
            self._metric(_names.GEN_AI_CLIENT_TOKEN_USAGE, "{token}", self._tokens, TOKEN_BOUNDS, now_ns),
        ]
        scoped = _metrics.ScopeMetrics(scope=_SCOPE, metrics=[one for one in metrics if one is not None])
        of_us = _metrics.ResourceMetrics(resource=self._resource, scope_metrics=[scoped])
        request = _metrics_service.ExportMetricsServiceRequest(resource_metrics=[of_us])
        return not scoped.metrics or self._post.send(request.SerializeToString())

    def close(self) -> None:
        """Try nothing again."""
        self._post.close()

    def _metric(
        self, name: str, unit: str, spreads: Mapping[Key, _Spread], bounds: Sequence[float], now_ns: int
    ) -> Any:
        points = [
            _metrics.HistogramDataPoint(
                attributes=one.attributes,
                start_time_unix_nano=self._began_ns,
                time_unix_nano=now_ns,
                count=sum(one.counts),
                sum=one.total,
                bucket_counts=one.counts,
                explicit_bounds=bounds,
            )
            for one in spreads.values()
        ]
        cumulative = _metrics.AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
        histogram = _metrics.Histogram(data_points=points, aggregation_temporality=cumulative)
        return _metrics.Metric(name=name, unit=unit, histogram=histogram) if points else None


def _add(spreads: dict[Key, _Spread], attempt: Attempt, kind: str, value: float, bounds: Sequence[float]) -> None:
    ended = "" if attempt.outcome == "ok" else attempt.code or attempt.outcome
    key = (attempt.endpoint.id, ended, kind)
    spread = spreads.get(key)
    if spread is None:
        if len(spreads) >= KEYS_MAX:
            return
        attributes = [text(name, said) for name, said in names_of(attempt.endpoint).items()]
        address, port = place_of(attempt.endpoint.base_url)
        attributes += [text(SERVER_ADDRESS, address), number(SERVER_PORT, port)] if address else []
        attributes += [text(ERROR_TYPE, ended)] if ended else []
        attributes += [text(_KIND, kind)] if kind else []
        spread = spreads[key] = _Spread(attributes, bounds)
    spread.counts[bisect_left(bounds, value)] += 1
    spread.total += value
