"""Finds the named bounds of the code, with their units and what is said of them there. Used by generate_docs.py."""

import ast
import inspect
import operator
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from docs_words import LIMIT_WORDS

Number: TypeAlias = int | float
Row: TypeAlias = tuple[str, str, str, str]
"""Name, value, meaning (or nothing) and file."""

UNITS = (
    *("_BYTES", "_S", "_TOKENS", "_CHARS", "_MAX", "_MIN", "_COUNT", "_DIGITS", "_BYTES_PER_S", "_CRASHES"),
    *("_SHARE", "_PERCENT", "_LEAST", "_TIMES", "_OPEN", "_DEGRADED", "_JITTER", "_TO_CLOSE", "_TO_FALL", "_TO_RISE"),
)
SIZES = {"KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}
SECTIONS = (
    ("A client's connection", "HTTP before anything else; see [the HTTP reference](http.md).", ("gateway/server/",)),
    ("A request's content", "", ("providers/messages.py", "gateway/server/openai_request.py")),
    (
        "Attempts",
        "How long a provider may take, and how often others are asked; see [failover](../explanation/failover.md).",
        (
            *("gateway/attempts.py", "gateway/retries.py", "gateway/turns.py", "gateway/rescue.py"),
            *("gateway/hedging.py", "gateway/health/budget.py", "gateway/answer.py", "gateway/call.py"),
            *("gateway/engine.py", "gateway/upstream.py", "gateway/watch.py", "gateway/cost_check.py"),
        ),
    ),
    (
        "Health of Endpoints",
        "When an Endpoint is left alone, and how it comes back; see [health](../explanation/health.md).",
        ("gateway/health/", "gateway/probes.py", "gateway/health_history.py", "gateway/observation.py"),
    ),
    (
        "Letting requests in",
        "What is over these is refused before its body is looked at. `in_flight_max` and the like are settings.",
        ("gateway/admission.py",),
    ),
    (
        "Routing",
        "",
        (
            "gateway/routing/eligible.py",
            "gateway/routing/policies.py",
            "gateway/overflow.py",
            "gateway/targets.py",
            "gateway/routing/preferences.py",
            "gateway/routing/plugins.py",
            "gateway/routing/compression.py",
            "gateway/routing/warmth.py",
            "gateway/learned.py",
        ),
    ),
    (
        "Answers given again",
        "[What is kept](../how-to/cache-answers.md); [calls sent again](http.md#calls-that-may-be-sent-again).",
        ("gateway/cache/", "gateway/reuse.py", "gateway/reused.py", "gateway/server/idempotency.py"),
    ),
    ("The way to a provider", "", ("providers/",)),
    ("providers.yaml", "", ("gateway/config/",)),
    (
        "Issued client keys",
        "What a key may be, and how its budgets and rates are kept; see [money](../explanation/money.md#budgets).",
        ("gateway/keys/", "gateway/access.py", "gateway/payment.py", "gateway/bill.py"),
    ),
    (
        "Several gateways",
        "What they share over a Redis, and workers with their owner; see [how](../how-to/run-several-gateways.md).",
        ("gateway/sharing/", "gateway/workers/"),
    ),
    (
        "What is kept",
        "`mixgate.db` and the journal of the ledger in MIXGATE_HOME.",
        ("gateway/state/", "gateway/explain/", "gateway/ledger/"),
    ),
    (
        "Reports, what-if and alerts",
        "Of one answer, and of [alerts](../how-to/alerts.md); see [reports](../how-to/read-reports.md).",
        ("gateway/reports/", "gateway/whatif/", "gateway/alerts/"),
    ),
    (
        "The dashboard",
        "Who is signed in, and what is looked up at once; see [its API](dashboard-api.md).",
        ("gateway/dashboard/",),
    ),
    ("What `mixgate import` and `mixgate refresh` read", "", ("gateway/imports/", "gateway/config/refreshed.py")),
    ("The local backend", "", ("gateway/app.py", "local_backend/")),
    ("Model files", "What a GGUF may hold before it is refused.", ("local_backend/gguf",)),
    ("JSON schemas for the local backend", "", ("local_backend/grammar.py", "local_backend/integer_ranges.py")),
    ("Downloads", "`mixgate pull`", ("local_backend/hub.py", "local_backend/pull.py")),
)
LEFT_OUT = {
    "gateway/cli/": "shown by the commands themselves",
    "gateway/drill/": "what a drill plays, not what the gateway does",
    "gateway/simulate/": "what is pretended in a simulation",
    "gateway/virtual_time.py": "no time that anybody waits",
    "local_backend/demo_model/": "training is not part of the product",
}
PLAIN = {
    "US_PER_S",
    "DAY_S",
    "HOUR_S",
    "MINUTE_S",
    "ERROR_STATUS_MIN",
    "PORT_MAX",
    "CREATED_UNIX_S",
    "VERSION_MAX",
    "WEIGHT_MIN",
    "RATIO_MIN",
    "LEARNING_RATE_MIN",
}
_OPERATORS = {
    ast.Mult: operator.mul,
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Pow: operator.pow,
    ast.LShift: operator.lshift,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.truediv,
}


def limit_sections(root: Path) -> Iterator[tuple[str, str, list[Row]]]:
    """Title, a sentence and the rows of every section, those without a meaning too.

    A file belongs to the section with the longest path that fits.
    """
    files: dict[str, list[str]] = {title: [] for title, _, _ in SECTIONS}
    for path in sorted(
        path for top in ("gateway", "providers", "local_backend") for path in (root / top).rglob("*.py")
    ):
        name = path.relative_to(root).as_posix()
        places = [(place, title) for title, _, places in SECTIONS for place in places if name.startswith(place)]
        if places and not name.startswith(tuple(LEFT_OUT)):
            files[max(places, key=lambda found: len(found[0]))[1]].append(name)
    for title, intro, _ in SECTIONS:
        rows = [row for name in files[title] for row in _bounds(root, name)]
        yield title, intro, rows


def _bounds(root: Path, name: str) -> Iterator[Row]:
    """The rows of one file: module constants, and the fields of a class `Limits`."""
    body = ast.parse((root / name).read_text(encoding="utf-8")).body
    values: dict[str, Number] = dict(SIZES)
    yield from _of(body, values, name, "")
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name == "Limits":
            yield from _of(node.body, values, name, "Limits.")


def _of(body: list[ast.stmt], values: dict[str, Number], name: str, owner: str) -> Iterator[Row]:
    for node, after in zip(body, [*body[1:], None], strict=False):
        target, expression = _assigned(node)
        value = None if target is None else _evaluate(expression, values)
        if target is None or value is None:
            continue
        values[target] = value
        if target.startswith("_") or target in PLAIN or not target.upper().endswith(UNITS):
            continue
        # A field of Limits that only repeats a constant says nothing new.
        if owner and isinstance(expression, ast.Name) and expression.id.lower() == target:
            continue
        said = LIMIT_WORDS.get(f"{name}:{target}") or _docstring(after)
        yield f"`{owner}{target}`", _with_unit(target, value), said, f"`{name}`"


def _assigned(node: ast.stmt) -> tuple[str | None, ast.expr | None]:
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id, node.value
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return node.target.id, node.value
    return None, None


def _evaluate(node: ast.expr | None, values: Mapping[str, Number]) -> Number | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return node.value
    if isinstance(node, ast.Name):
        return values.get(node.id)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _evaluate(node.left, values), _evaluate(node.right, values)
        return None if left is None or right is None else _OPERATORS[type(node.op)](left, right)
    return None


def _docstring(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return inspect.cleandoc(node.value.value).replace("\n", " ")
    return ""


def _with_unit(target: str, value: Number) -> str:  # noqa: PLR0911  # one line per unit
    name = target.upper()
    if name.endswith("_BYTES_PER_S"):
        return f"{_size(value)}/s"
    if name.endswith("_BYTES"):
        return _size(value)
    if name.endswith("_PER_S"):
        return f"{value:,}/s"
    if name.endswith("_PERCENT"):
        return f"{value:g} %"
    if name.endswith(("_SHARE", "_JITTER", "_DEGRADED")) or name == "RATIO_OPEN":
        return f"{value * 100:g} %"
    if name.endswith("_TIMES"):
        return f"{value:g} times"
    if name.endswith("_S"):
        return _duration(value)
    if name.endswith("_TOKENS"):
        return f"{value:,} tokens"
    if name.endswith("_CHARS"):
        return f"{value:,} characters"
    return f"{value:,}"


def _duration(value: Number) -> str:
    if 0 < value < 0.1:
        return f"{value * 1000:g} ms"
    for unit, length in (("days", 86_400), ("hours", 3600)):
        if value >= 2 * length and value % length == 0:
            return f"{value // length:,.0f} {unit}"
    return f"{value:g} s"


def _size(value: Number) -> str:
    for unit, size in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if value >= size and value % size == 0:
            return f"{int(value // size):,} {unit}"
    return f"{value:,} bytes"
