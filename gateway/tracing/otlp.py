"""OpenTelemetry's own library at work: spans and metrics by OTLP over http. Importing this imports the library."""

import logging
import math
import threading
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.semconv._incubating.attributes.gen_ai_attributes import (  # pyright: ignore[reportMissingTypeStubs]
    GEN_AI_TOKEN_TYPE,
)
from opentelemetry.semconv._incubating.metrics.gen_ai_metrics import (  # pyright: ignore[reportMissingTypeStubs]
    GEN_AI_CLIENT_OPERATION_DURATION,
    GEN_AI_CLIENT_TOKEN_USAGE,
)

from gateway.explain.trace import Trace
from gateway.tracing.spans import attempt_attributes

LAST_EXPORT_S: Final = 2.0
"""How long the end waits for the last metrics."""
TOKEN_BOUNDS: Final = tuple(4**power for power in range(14))
DURATION_BOUNDS_S: Final = tuple(0.01 * 2**power for power in range(14))
"""Both as the conventions recommend."""

# It reports every batch that is not taken; we report once, and count.
logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)


def resource_of(version: str) -> Resource:
    """Who speaks. OTEL_RESOURCE_ATTRIBUTES adds to it."""
    return Resource.create({"service.name": "mixgate", "service.version": version})


class OtlpSpans:
    """Where spans go."""

    def __init__(self, endpoint: str, headers: Mapping[str, str], timeout_s: float) -> None:
        self._exporter = OTLPSpanExporter(
            endpoint=f"{endpoint}/v1/traces",
            headers=dict(headers),
            timeout=timeout_s,
            compression=Compression.Gzip,
            session=_session(),
        )

    def export(self, spans: list[ReadableSpan]) -> bool:
        """Whether they were taken."""
        return self._exporter.export(spans) is SpanExportResult.SUCCESS

    def close(self) -> None:
        """Give up what is being tried."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]  # the library forgot to say that it returns nothing


class OtlpCounts:
    """Where metrics go: how many tokens, and how long, for each kind of Attempt."""

    def __init__(self, endpoint: str, headers: Mapping[str, str], timeout_s: float, resource: Resource) -> None:
        exporter = OTLPMetricExporter(
            endpoint=f"{endpoint}/v1/metrics",
            headers=dict(headers),
            timeout=timeout_s,
            compression=Compression.Gzip,
            session=_session(),
        )
        # Its own thread would make one more; ours asks.
        reader = PeriodicExportingMetricReader(exporter, export_interval_millis=math.inf)
        self._provider = MeterProvider([reader], resource, shutdown_on_exit=False)
        meter = self._provider.get_meter("mixgate")
        self._tokens = meter.create_histogram(
            GEN_AI_CLIENT_TOKEN_USAGE,
            "{token}",
            "Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=TOKEN_BOUNDS,
        )
        self._duration = meter.create_histogram(
            GEN_AI_CLIENT_OPERATION_DURATION,
            "s",
            "GenAI operation duration.",
            explicit_bucket_boundaries_advisory=DURATION_BOUNDS_S,
        )

    def note(self, trace: Trace) -> None:
        """Count what a request used."""
        for attempt in trace.attempts:
            attributes = attempt_attributes(attempt)
            self._duration.record(attempt.duration_s, attributes)
            usage = attempt.usage
            if usage is not None:
                for kind, count in (("input", usage.input_tokens), ("output", usage.output_tokens)):
                    if count is not None:
                        self._tokens.record(count, {**attributes, GEN_AI_TOKEN_TYPE: kind})

    def flush(self) -> None:
        """Export them."""
        self._provider.force_flush()

    def close(self) -> None:
        """Export them for the last time. A place that hangs is not waited for."""
        last = threading.Thread(target=self._provider.force_flush, name="mixgate-last-metrics", daemon=True)
        last.start()
        last.join(LAST_EXPORT_S)
        self._provider.shutdown()


def _session() -> Any:
    """Follows no redirect: the headers that it sends are for the configured place alone."""
    session: Any = import_module("requests").Session()
    session.max_redirects = 0
    return session
