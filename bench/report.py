"""What a run prints and keeps: the tables, the results file, the README's block."""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.figures import (
    FOREIGN_SHARE_MAX,
    Figures,
    Judgement,
    Visit,
    Window,
    best_litellm,
    judge_all,
    ratio,
    summarise,
)

COLUMNS = (
    ("c1", "c1 us", 0),
    ("c32", "c32 us", 0),
    ("c256", "c256 us", 0),
    ("large", "100KB us", 0),
    ("paced", "paced us/chunk", 1),
    ("burst", "burst us/chunk", 1),
    ("c32_per_s", "c32 req/s", 0),
    ("c32_p50_ms", "p50 ms", 2),
    ("c32_p99_ms", "p99 ms", 2),
    ("c1_p50_us", "c1 p50 us", 0),
    ("ttft_p50_ms", "TTFT ms", 1),
    ("chunk_p50_us", "chunk p50 us", 0),
    ("chunk_p99_us", "chunk p99 us", 0),
    ("pss_mb", "PSS MB", 0),
    ("start_s", "start s", 2),
)
MARKDOWN_COLUMNS = (
    ("c32", 0, "us"),
    ("c256", 0, "us"),
    ("large", 0, "us"),
    ("paced", 1, "us"),
    ("burst", 1, "us"),
    ("pss_mb", 0, "MB"),
    ("start_s", 2, "s"),
)
RATIO_FIGURES = ("c1", "c32", "c256", "large", "paced", "burst", "pss_mb", "start_s")


def tabulate(results: Mapping[str, Any]) -> dict[str, Figures]:
    """Medians of every target from the plain data of a run."""
    table: dict[str, Figures] = {}
    for name in results["versions"]:
        visits = [
            Visit(**visit | {"windows": {mode: Window(**window) for mode, window in visit["windows"].items()}})
            for visit in results["visits"]
            if visit["target"] == name
        ]
        if visits:
            table[name] = summarise(visits)
    return table


def describe_machine() -> dict[str, str]:
    """What the figures belong to."""
    model = next((line for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    cores = sum(line.startswith("processor") for line in _lines("/proc/cpuinfo"))
    return {
        "cpu": model.partition(":")[2].strip() or platform.machine(),
        "cores": str(cores),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def print_report(results: Mapping[str, Any]) -> list[Judgement]:
    """Print the figures, the ratios, what was left out and the bars; return the bars."""
    table = tabulate(results)
    judgements = judge_all(table, results["import_s"])
    print("\nFigures: medians; us are CPU microseconds of the target's whole process tree\n")
    print(_aligned([["", *(title for _, title, _ in COLUMNS), "bad", "crossed"], *_figure_rows(table)]))
    print("\nRatios: what mixgate costs, in multiples of each\n")
    print(_aligned([["of", *RATIO_FIGURES], *_ratio_rows(table)]))
    print_bars("Bars", judgements)
    for line in _remarks(results, table):
        print(line)
    return judgements


def print_bars(title: str, judgements: Sequence[Judgement]) -> None:
    """Print promises and what came of them."""
    print(f"\n{title}\n")
    print(_aligned([["", "value", "limit", "aim", ""], *(_bar_row(judgement) for judgement in judgements)]))


def _figure_rows(table: Mapping[str, Figures]) -> list[list[str]]:
    return [
        [
            name,
            *(_number(found.get(figure), digits) for figure, _, digits in COLUMNS),
            str(found.bad),
            _number(found.crossed, 0),
        ]
        for name, found in table.items()
    ]


def _ratio_rows(table: Mapping[str, Figures]) -> list[list[str]]:
    others = [name for name in table if name not in {"mixgate", "direct"}]
    return [[other, *(_ratio_text(ratio(table, figure, other)) for figure in RATIO_FIGURES)] for other in others]


def _bar_row(judgement: Judgement) -> list[str]:
    name = f"{judgement.name}, {judgement.unit}"
    value, limit, aim = (
        _bar_text(amount, judgement.unit) for amount in (judgement.value, judgement.limit, judgement.aim)
    )
    return [name, value, limit, "" if judgement.aim is None else aim, judgement.status]


def _remarks(results: Mapping[str, Any], table: Mapping[str, Figures]) -> list[str]:
    remarks: list[str] = []
    if not table:
        return remarks
    worst = max(table, key=lambda name: table[name].foreign_share)
    if table[worst].foreign_share > FOREIGN_SHARE_MAX:
        remarks.append(
            f"\nNOISY: others used up to {table[worst].foreign_share:.0%} of a core during a window ({worst}); "
            f"above {FOREIGN_SHARE_MAX:.0%} the figures are not to be quoted."
        )
    for name, found in table.items():
        odd = sorted({verdict for verdict in found.verdicts if verdict != "streams"})
        if odd:
            remarks.append(
                f"{name}: paced streams were {', '.join(odd)}; slow ones keep their figure, others have none"
            )
        if found.first_failure:
            remarks.append(f"{name}: first failure: {found.first_failure}")
    remarks += [f"{name}: not measured: {why}" for name, why in results["unavailable"].items()]
    if results["import_note"]:
        remarks.append(f"import time: not measured: {results['import_note']}")
    return remarks


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    return "\n".join(lines)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _with_unit(value: float | None, digits: int, unit: str) -> str:
    return "-" if value is None else f"{_number(value, digits)} {unit}"


def _bar_text(value: float | None, unit: str) -> str:
    """A figure of a bar: multiples of something ("x nginx") are ratios, all others amounts."""
    return _ratio_text(value) if unit.startswith("x ") else _short(value)


def _ratio_text(value: float | None) -> str:
    """A short number, and a small ratio as the fraction people compare it with."""
    return f"1/{1 / value:.0f}" if value is not None and 0 < value < 0.1 else _short(value)


def _short(value: float | None) -> str:
    """Two digits behind the point, or as many as a small amount needs to show two of its own."""
    if value is None:
        return "-"
    if value == int(value):
        return f"{value:.0f}"
    return f"{value:.2g}" if abs(value) < 0.1 else f"{value:.2f}"


ALONE = ("codecs", "decisions", "in_process", "ledger", "beside_local", "beside_dashboard", "dashboard")
"""What is measured by a call of its own and kept in the same file."""


def keep(name: str, judgements: Sequence[Judgement], path: Path, seen: Any = None) -> None:
    """Put one of ALONE beside what the file holds already."""
    document = json.loads(path.read_text()) if path.exists() else {}
    document[name] = {"machine": describe_machine(), "bars": [asdict(judged) for judged in judgements], "seen": seen}
    path.write_text(json.dumps(document, indent=1) + "\n")


def save(results: Mapping[str, Any], path: Path) -> None:
    """Keep a run: what was seen, the medians, and the bars. What was measured alone stays."""
    table = tabulate(results)
    before = json.loads(path.read_text()) if path.exists() else {}
    document = {name: before[name] for name in ALONE if name in before} | dict(results)
    document["figures"] = {name: asdict(found) for name, found in table.items()}
    document["bars"] = [asdict(judgement) for judgement in judge_all(table, results["import_s"])]
    path.write_text(json.dumps(document, indent=1) + "\n")


def markdown(results: Mapping[str, Any]) -> str:
    """The README's block: bars first, then who was measured beside us."""
    table = tabulate(results)
    machine = results["machine"]
    lines = ["| what | measured | bar |", "|---|---:|---:|"]
    lines += [
        f"| {bar.name} ({bar.unit}) | {_bar_text(bar.value, bar.unit)} | <= {_bar_text(bar.limit, bar.unit)} |"
        for bar in judge_all(table, results["import_s"])
    ]
    lines += ["", "| | CPU/request c32 | c256 | 100 KB | CPU/paced chunk | burst | memory | start |"]
    lines.append("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name, found in table.items():
        if name == "direct":
            continue
        cells = [_with_unit(found.get(figure), digits, unit) for figure, digits, unit in MARKDOWN_COLUMNS]
        version = results["versions"][name]
        label = name if version == "frozen" else f"{name.split('-1.')[0]} {version}"
        lines.append(f"| {label} | {' | '.join(cells)} |")
    best = best_litellm(table, "c32")
    lines += ["", f"`make bench`, {results['rounds']} rounds, medians; {machine['cpu']}, {machine['cores']} cores, "]
    lines[-1] += f"Python {machine['python']}" + (f"; LiteLLM's best is {best}." if best else ".")
    if any(found.foreign_share > FOREIGN_SHARE_MAX for found in table.values()):
        lines[-1] += " NOISY: others used the machine meanwhile; do not quote."
    return "\n".join(lines)
