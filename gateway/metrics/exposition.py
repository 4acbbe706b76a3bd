"""Figures in Prometheus' own words, by its own library, with a registry of its own for each answer."""

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from gateway.metrics.families import FAMILIES, MS_PER_S, Family, Reading, Sample, Spread

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric


def render(reading: Reading, accept: str) -> tuple[bytes, str]:
    """The text, and what type it is. For any thread; takes a few milliseconds for each hundred Endpoints.

    Args:
        reading: All figures.
        accept: The header of that name: who asks for OpenMetrics gets that.
    """
    # Not at start-up: it takes a tenth of a second, and only who is scraped needs it.
    from prometheus_client.exposition import choose_encoder  # noqa: PLC0415
    from prometheus_client.process_collector import ProcessCollector  # noqa: PLC0415
    from prometheus_client.registry import CollectorRegistry  # noqa: PLC0415

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(reading))
    ProcessCollector(registry=registry)
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Collector:
    """What a registry asks for figures."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def collect(self) -> "Iterator[Metric]":
        """Every family that has figures."""
        for family in FAMILIES:
            if samples := self._reading.get(family):
                yield _metric(family, samples)

    def describe(self) -> "Iterable[Metric]":
        """Nothing: the registry is made for one answer."""
        return ()


def _metric(family: Family, samples: Iterable[Sample]) -> "Metric":
    # Loaded by now.
    from prometheus_client import metrics_core  # noqa: PLC0415

    name = f"mixgate_{family.name}"
    if family.kind == "histogram":
        histogram = metrics_core.HistogramMetricFamily(name, family.meaning, labels=family.labels)
        for labels, value in samples:
            if isinstance(value, Spread):
                histogram.add_metric(labels, buckets=_buckets(family, value), sum_value=value.sum_ms / MS_PER_S)
        return histogram
    if family.kind == "info":
        info = metrics_core.InfoMetricFamily(name, family.meaning)
        for labels, _ in samples:
            info.add_metric([], dict(zip(family.labels, labels, strict=True)))
        return info
    kind: Any = metrics_core.CounterMetricFamily if family.kind == "counter" else metrics_core.GaugeMetricFamily
    metric: metrics_core.Metric = kind(name, family.meaning, labels=family.labels)
    adding: Any = metric
    for labels, value in samples:
        adding.add_metric(labels, value)
    return metric


def _buckets(family: Family, spread: Spread) -> list[tuple[str, float]]:
    bounds = [*(repr(bound / MS_PER_S) for bound in family.bounds_ms), "+Inf"]
    return list(zip(bounds, accumulate(spread.counts, initial=None), strict=True))
