"""The arithmetic of the benchmark, without any I/O: windows into figures, figures into ratios and bars."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

LITELLM = ("litellm-1.106", "litellm-1.80")
"""LiteLLM is quoted as its best variant."""

TTFT_P50_MAX_MS = 60.0
CHUNK_P50_MAX_MS = 10.0
CHUNK_P99_MAX_MS = 200.0
"""A gateway that streams stays within these: the mock sends its first chunk within 20 ms, on the same machine."""
SLOW_TTFT_P50_MAX_MS = 1000.0
"""Half the length of a paced stream. Later than this, with chunks that are late too, is a stream held back."""
SATURATED_SHARE = 0.85
"""A target that wants this much of its core is late because it can't keep up, which is slow but still streaming."""
FOREIGN_SHARE_MAX = 0.05

StreamVerdict = Literal["streams", "slow", "held back", "incomplete", "not a stream"]
Status = Literal["PASS", "FAIL", "not run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What one window of load has cost one target."""

    requests: int
    """Requests that the mock upstream has received: the denominator."""
    chunks: int
    """Events of finished streams, by the mock's count."""
    cpu_s: float
    """CPU time of the target's whole process tree."""
    waited_s: float
    """Time its threads were ready to run while somebody else had the core."""
    window_s: float
    """From the first request to the last answer."""
    foreign_s: float
    """CPU time that others on the machine spent meanwhile."""
    elapsed_s: float
    """What `foreign_s` is a share of: the window and the wait for silence."""
    completed: int
    bad: int
    """Failed, incomplete and hung answers."""
    crossed: int
    """Marked requests that came back with another's marker, or with none."""
    latency_us: dict[str, int]
    ttft_us: dict[str, int]
    chunk_us: dict[str, int]
    paced: bool
    first_failure: str

    @property
    def cpu_us_per_request(self) -> float | None:
        """CPU microseconds per request; `None` when nothing arrived or nothing was spent."""
        return self.cpu_s * 1e6 / self.requests if self.requests and self.cpu_s else None

    @property
    def cpu_us_per_chunk(self) -> float | None:
        """CPU microseconds per chunk, the request's own cost shared out among its chunks."""
        return self.cpu_s * 1e6 / self.chunks if self.chunks and self.cpu_s else None

    @property
    def demand(self) -> float:
        """Cores it used or waited for, on average."""
        return (self.cpu_s + self.waited_s) / self.window_s if self.window_s else 0.0

    @property
    def verdict(self) -> StreamVerdict:
        """Whether a window of streams really streamed."""
        if not self.chunks:
            return "not a stream"
        if self.bad or not self.completed:
            return "incomplete"
        ttft_ms, chunk_ms, late_ms = (
            microseconds / 1e3 for microseconds in (self.ttft_us["p50"], self.chunk_us["p50"], self.chunk_us["p99"])
        )
        if not self.paced or (
            ttft_ms <= TTFT_P50_MAX_MS and chunk_ms <= CHUNK_P50_MAX_MS and late_ms <= CHUNK_P99_MAX_MS
        ):
            return "streams"
        flows = ttft_ms <= SLOW_TTFT_P50_MAX_MS and chunk_ms <= CHUNK_P50_MAX_MS
        return "slow" if flows or self.demand >= SATURATED_SHARE else "held back"


@dataclass(frozen=True, slots=True)
class Visit:
    """One target in one round."""

    target: str
    start_s: float
    """From spawning it to its first 200; 0 for the direct target."""
    pss_mb: float
    """Memory of its tree after the load."""
    windows: dict[str, Window]


@dataclass(frozen=True, slots=True)
class Figures:
    """Medians of one target over all rounds. `None`: not measured, or measured and not valid."""

    values: Mapping[str, float | None]
    spread: Mapping[str, tuple[float, float]]
    """The lowest and highest value of each figure."""
    verdicts: tuple[StreamVerdict, ...]
    """What the paced windows turned out to be, one per round."""
    bad: int
    crossed: int | None
    """`None` when no window of marked requests was run."""
    first_failure: str
    foreign_share: float
    """The worst window's share of the machine that went to others."""

    def get(self, name: str) -> float | None:
        """A figure by its name."""
        return self.values.get(name)


PER_REQUEST_MODES = ("c1", "c32", "c256", "large")
MODE_NAMES = (*PER_REQUEST_MODES, "paced", "burst")
FIGURE_NAMES = (
    *PER_REQUEST_MODES,
    "paced",
    "burst",
    "c32_per_s",
    "c1_p50_us",
    "c32_p50_ms",
    "c32_p99_ms",
    "ttft_p50_ms",
    "chunk_p50_us",
    "chunk_p99_us",
    "pss_mb",
    "start_s",
)


def figures_of_round(windows: Mapping[str, Window], *, pss_mb: float, start_s: float) -> dict[str, float]:
    """The valid figures of one visit."""
    found: dict[str, float | None] = {"pss_mb": pss_mb or None, "start_s": start_s or None}
    for name in PER_REQUEST_MODES:
        if (window := windows.get(name)) and not window.bad:
            found[name] = window.cpu_us_per_request
    if window := windows.get("c32"):
        found["c32_per_s"] = window.completed / window.window_s if window.window_s else None
        found["c32_p50_ms"] = window.latency_us["p50"] / 1e3
        found["c32_p99_ms"] = window.latency_us["p99"] / 1e3
    if window := windows.get("c1"):
        found["c1_p50_us"] = float(window.latency_us["p50"])
    for name in ("paced", "burst"):
        if (window := windows.get(name)) and window.verdict in {"streams", "slow"}:
            found[name] = window.cpu_us_per_chunk
    if window := windows.get("paced"):
        found["ttft_p50_ms"] = window.ttft_us["p50"] / 1e3
        found["chunk_p50_us"] = float(window.chunk_us["p50"])
        found["chunk_p99_us"] = float(window.chunk_us["p99"])
    return {name: value for name, value in found.items() if value is not None}


def summarise(visits: Sequence[Visit]) -> Figures:
    """Medians over rounds, of quiet windows where there are any. A figure that most of those lack is not given.

    What went wrong is counted in every window, noisy or not.
    """
    all_windows = [visit.windows for visit in visits]
    used = quietest(all_windows)
    by_round = [
        figures_of_round(windows, pss_mb=visit.pss_mb, start_s=visit.start_s)
        for windows, visit in zip(used, visits, strict=True)
    ]
    seen = [window for windows in all_windows for window in windows.values()]
    values: dict[str, float | None] = {}
    spread: dict[str, tuple[float, float]] = {}
    for name in FIGURE_NAMES:
        samples = [figures[name] for figures in by_round if name in figures]
        mode = name.partition("_")[0]
        possible = sum(mode in windows for windows in used) if mode in MODE_NAMES else len(used)
        if not samples or 2 * len(samples) < possible:
            values[name] = None
            continue
        values[name] = median(samples)
        spread[name] = (min(samples), max(samples))
    return Figures(
        values=values,
        spread=spread,
        verdicts=tuple(windows["paced"].verdict for windows in used if "paced" in windows),
        bad=sum(window.bad for window in seen),
        crossed=sum(window.crossed for window in seen) if _marked(all_windows) else None,
        first_failure=next((window.first_failure for window in seen if window.first_failure), ""),
        foreign_share=max((foreign_share(window) for windows in used for window in windows.values()), default=0.0),
    )


def _marked(rounds: Sequence[Mapping[str, Window]]) -> bool:
    return any(name.startswith("crossed") for windows in rounds for name in windows)


def foreign_share(window: Window) -> float:
    """CPU time of others as a share of one core."""
    return window.foreign_s / window.elapsed_s if window.elapsed_s else 0.0


def quietest(rounds: Sequence[Mapping[str, Window]]) -> list[dict[str, Window]]:
    """The same rounds without the noisy windows, for every mode that has a quiet window in at least one round."""
    has_quiet = {name for windows in rounds for name, window in windows.items() if is_quiet(window)}
    return [
        {name: window for name, window in windows.items() if is_quiet(window) or name not in has_quiet}
        for windows in rounds
    ]


def is_quiet(window: Window) -> bool:
    """Whether others left the machine alone."""
    return foreign_share(window) <= FOREIGN_SHARE_MAX


Table = Mapping[str, Figures]


def ratio(
    table: Table, figure: str, other: str, *, of: str = "mixgate", other_figure: str | None = None
) -> float | None:
    """How many times one target's figure is another's; `None` unless both were measured."""
    mine = table[of].get(figure) if of in table else None
    theirs = table[other].get(other_figure or figure) if other in table else None
    return mine / theirs if mine is not None and theirs else None


def best_litellm(table: Table, figure: str) -> str | None:
    """The LiteLLM variant that is cheapest in this figure."""
    costs = {name: table[name].get(figure) for name in LITELLM if name in table}
    known = {name: cost for name, cost in costs.items() if cost is not None}
    return min(known, key=lambda name: known[name]) if known else None


@dataclass(frozen=True, slots=True)
class Bar:
    """A promise about the gateway: a measured value that has to stay at or below a limit."""

    name: str
    unit: str
    limit: float
    value: Callable[[Table, float | None], float | None]
    """From the table and the import time in seconds."""
    aim: float | None = None

    def judge(self, table: Table, import_s: float | None) -> "Judgement":
        """Hold the promise against what was measured."""
        value = self.value(table, import_s)
        status: Status = "not run" if value is None else "PASS" if value <= self.limit else "FAIL"
        return Judgement(self.name, self.unit, self.limit, self.aim, value, status)


@dataclass(frozen=True, slots=True)
class Judgement:
    """A promise and what came of it."""

    name: str
    unit: str
    limit: float
    aim: float | None
    value: float | None
    status: Status


def judge_at_most(name: str, unit: str, limit: float, value: float | None) -> Judgement:
    """A bar that a figure must not be above; None: it was not measured."""
    status: Status = "not run" if value is None else "PASS" if value <= limit else "FAIL"
    return Judgement(name, unit, limit, None, value, status)


def _against_litellm(table: Table, figure: str, *, of: str) -> float | None:
    best = best_litellm(table, figure)
    return ratio(table, figure, best, of=of) if best else None


def _figure(table: Table, name: str, *, of: str = "mixgate") -> float | None:
    return table[of].get(name) if of in table else None


def _count(table: Table, of: Callable[[Figures], int | None]) -> float | None:
    return of(table["mixgate"]) if "mixgate" in table else None


def _late_streams(figures: Figures) -> int | None:
    return sum(verdict != "streams" for verdict in figures.verdicts) if figures.verdicts else None


BARE = "mixgate-bare"
ROUTING = "mixgate-routing"
FIRST_C32 = 8.6
"""What a small request cost when there was neither ledger nor record, in multiples of nginx's cost."""

BARS = (
    Bar("CPU per request, c32, everything on", "x nginx", 8.0, lambda t, _: ratio(t, "c32", "nginx"), aim=5.0),
    Bar(
        "CPU per request, c32, without the ledger",
        "x nginx",
        1.25 * FIRST_C32,
        lambda t, _: ratio(t, "c32", "nginx", of=ROUTING),
    ),
    Bar(
        "CPU per request, c32, without ledger and records",
        "x nginx",
        6.0,
        lambda t, _: ratio(t, "c32", "nginx", of=BARE),
        aim=4.0,
    ),
    Bar(
        "CPU per request, c32, without ledger and records",
        "x LiteLLM's best",
        1 / 90,
        lambda t, _: _against_litellm(t, "c32", of=BARE),
    ),
    Bar("CPU per request, c256", "x own c32", 1.3, lambda t, _: ratio(t, "c256", "mixgate", other_figure="c32")),
    Bar(
        "CPU per paced chunk, without ledger and records",
        "x nginx",
        2.5,
        lambda t, _: ratio(t, "paced", "nginx", of=BARE),
        aim=1.8,
    ),
    Bar("CPU per burst chunk", "x aiohttp anchor", 1.5, lambda t, _: ratio(t, "burst", "aiohttp-anchor"), aim=1.0),
    Bar("memory after load, without ledger and records", "MB PSS", 75.0, lambda t, _: _figure(t, "pss_mb", of=BARE)),
    Bar("start to first 200", "s", 0.6, lambda t, _: _figure(t, "start_s")),
    Bar("import of the gateway", "s", 0.3, lambda _, import_s: import_s),
    Bar("bad answers", "count", 0, lambda t, _: _count(t, lambda f: f.bad)),
    Bar("crossed answers", "count", 0, lambda t, _: _count(t, lambda f: f.crossed)),
    Bar("paced windows that did not stream", "count", 0, lambda t, _: _count(t, _late_streams)),
)


def judge_all(table: Table, import_s: float | None) -> list[Judgement]:
    """Every promise."""
    return [bar.judge(table, import_s) for bar in BARS]
