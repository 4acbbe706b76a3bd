"""Writes docs/reference/metrics.md from the families that the gateway exports. Used by generate_docs.py."""

from collections.abc import Iterator

from docs_markdown import MARK, table

from gateway.metrics.families import FAMILIES, MS_PER_S, Family


def metrics_page() -> Iterator[str]:
    """Every metric, with its labels and buckets."""
    yield "# Metrics\n"
    yield MARK + "\n"
    yield "`GET /metrics` has these in Prometheus' text format, and in OpenMetrics' for who asks for that. [Watch"
    yield "it](../how-to/watch-it.md) says who may read them and how to use them. A label's values are names of the"
    yield "configuration, public ids of client keys, or words listed here: never what a client wrote. What would be one"
    yield "value too many is counted as `other`. Counters begin at 0 with the process; with several workers every"
    yield "sample has the label `worker` too. Costs and tokens are those of the ledger, and equal its sums exactly."
    yield "Beside these come the `process_*` metrics that every Prometheus client has.\n"
    rows = [(f"`{family.full_name}`", family.kind, _labels(family), family.meaning) for family in FAMILIES]
    yield from table(("metric", "kind", "labels", "meaning"), rows)
    yield "## Buckets\n"
    bounded = [family for family in FAMILIES if family.bounds_ms]
    rows = [(f"`{family.full_name}`", _bounds(family)) for family in bounded]
    yield from table(("histogram", "upper bounds in seconds"), rows)


def _labels(family: Family) -> str:
    return " ".join(f"`{label}`" for label in family.labels)


def _bounds(family: Family) -> str:
    return " ".join(f"{bound / MS_PER_S:g}" for bound in family.bounds_ms)
