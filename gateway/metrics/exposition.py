"""Figures in Prometheus' own words, by its own library, with a registry of its own for each answer."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from gateway.metrics.families import FAMILIES, MS_PER_S, Family, Sample, Spread, Told

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

PROCESS: Final = "worker"
"""The label that tells several processes behind one port apart."""


def render(told: Sequence[Told], accept: str) -> tuple[bytes, str]:
    """The text, and what type it is. For any thread; takes a few milliseconds for each hundred Endpoints.

    Args:
        told: The figures of the process, or of all that stand behind one port.
        accept: The header of that name: who asks for OpenMetrics gets that.
    """
    # Not at start-up: it takes a tenth of a second, and only who is scraped needs it.
    from prometheus_client.exposition import choose_encoder  # noqa: PLC0415
    from prometheus_client.registry import CollectorRegistry  # noqa: PLC0415

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(told))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Collector:
    """What a registry asks for figures."""

    def __init__(self, told: Sequence[Told]) -> None:
        self._told = told

    def collect(self) -> "Iterator[Metric]":
        """Every family that has figures."""
        for family in FAMILIES:
            if any(family.name in one.reading for one in self._told):
                yield _metric(family, self._told)
        yield from _processes(self._told)

    def describe(self) -> "Iterable[Metric]":
        """Nothing: the registry is made for one answer."""
        return ()


def _metric(family: Family, told: Sequence[Told]) -> "Metric":
    # Loaded by now.
    from prometheus_client import metrics_core  # noqa: PLC0415

    kinds: Any = {
        "counter": metrics_core.CounterMetricFamily,
        "gauge": metrics_core.GaugeMetricFamily,
        "histogram": metrics_core.HistogramMetricFamily,
        "info": metrics_core.InfoMetricFamily,
    }
    several = any(one.process for one in told)
    own = () if family.kind == "info" else family.labels
    names = (*own, PROCESS) if several else own
    metric: Any = kinds[family.kind](f"mixgate_{family.name}", family.meaning, labels=names)
    for one in told:
        for sample in one.reading.get(family.name, ()):
            _add(metric, family, sample, (one.process,) if several else ())
    made: metrics_core.Metric = metric
    return made


def _add(metric: Any, family: Family, sample: Sample, process: tuple[str, ...]) -> None:
    labels, value = sample
    if isinstance(value, Spread):
        metric.add_metric((*labels, *process), buckets=_buckets(family, value), sum_value=value.sum_ms / MS_PER_S)
    elif family.kind == "info":
        metric.add_metric(process, dict(zip(family.labels, labels, strict=True)))
    else:
        metric.add_metric((*labels, *process), value)


def _buckets(family: Family, spread: Spread) -> list[tuple[str, float]]:
    bounds = [*(repr(bound / MS_PER_S) for bound in family.bounds_ms), "+Inf"]
    return list(zip(bounds, accumulate(spread.counts), strict=True))


def _processes(told: Sequence[Told]) -> "Iterator[Metric]":
    """CPU, memory and open files, of each process."""
    from prometheus_client.process_collector import ProcessCollector  # noqa: PLC0415

    found: dict[str, Metric] = {}
    for one in told:
        for metric in ProcessCollector(pid=partial(_pid_of, one), registry=None).collect():
            kept = found.setdefault(metric.name, metric)
            samples, metric.samples = metric.samples, []
            if kept is metric:
                kept.samples = []
            for sample in samples:
                kept.samples.append(sample._replace(labels={PROCESS: one.process} if one.process else {}))
    yield from found.values()


def _pid_of(told: Told) -> int:
    return told.pid
