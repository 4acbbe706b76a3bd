"""The benchmark's command line. `python -m bench --help`, or `make bench ARGS=...`."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.beside_dashboard import PAIRS_DEFAULT as DASHBOARD_PAIRS
from bench.beside_dashboard import judge_beside_dashboard, measure_beside_dashboard
from bench.beside_local import ROUNDS_DEFAULT as LOCAL_ROUNDS
from bench.beside_local import judge_beside_local, measure_beside_local
from bench.codecs import REPEATS, measure_codecs
from bench.dashboard import REPEATS as DASHBOARD_REPEATS
from bench.dashboard import measure_dashboard
from bench.decisions import REPEATS as DECISION_REPEATS
from bench.decisions import measure_decisions
from bench.figures import Judgement
from bench.in_process import REPEATS as IN_PROCESS_REPEATS
from bench.in_process import judge_in_process, measure_in_process, profile_in_process
from bench.ledger import QUICK_ROWS, measure_ledger
from bench.ledger import REPEATS as LEDGER_REPEATS
from bench.ledger import ROWS as LEDGER_ROWS
from bench.measure import Bench, measure_import, run_rounds
from bench.modes import MODES, shortened, write_bodies
from bench.profiling import profile_mode
from bench.report import describe_machine, keep, markdown, print_bars, print_report, save
from bench.running import Cores
from bench.targets import BUILDERS, UnavailableError
from bench.tools import OUT, BenchError, MockUpstream, build_tools

ROUNDS_DEFAULT = 5
PATIENCE_DEFAULT = 2
QUICK_REPEATS = 5
IN_PROCESS = "in-process"
EXIT_BAR_FAILED = 1
EXIT_NOT_MEASURED = 2


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """The options of this call."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="What a request costs in Mixgate and in other gateways, side by side."
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS_DEFAULT, help="interleaved rounds (default %(default)s)")
    parser.add_argument("--targets", type=_names(BUILDERS), help="only these, with commas: " + ", ".join(BUILDERS))
    names = [mode.name for mode in MODES]
    parser.add_argument("--modes", type=_names(names), help="only these, with commas: " + ", ".join(names))
    parser.add_argument(
        "--patience", type=int, default=PATIENCE_DEFAULT, help="repeats of a disturbed window (%(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="one round of short windows")
    parser.add_argument("--gate", action="store_true", help="exit 1 when a measured bar fails")
    parser.add_argument("--markdown", action="store_true", help="print the README's block from the last run, and stop")
    parser.add_argument(
        "--profile",
        choices=[*names, IN_PROCESS],
        metavar="MODE",
        help="profile the gateway in one mode, or in process, and stop",
    )
    parser.add_argument("--codecs", action="store_true", help="only what the dialects cost without sockets")
    parser.add_argument("--decisions", action="store_true", help="only what the router's decisions cost")
    parser.add_argument("--in-process", action="store_true", help="only what a routed request costs without sockets")
    parser.add_argument("--ledger", action="store_true", help="only what the ledger costs, and how fast it reports")
    parser.add_argument(
        "--ledger-rows",
        type=int,
        default=LEDGER_ROWS,
        help="rows of ledgers that are looked into (default %(default)s)",
    )
    parser.add_argument(
        "--beside-local", action="store_true", help="only what remote requests suffer beside a busy local worker"
    )
    parser.add_argument(
        "--local-model", type=_file, metavar="FILE", help="with --beside-local: this GGUF instead of the bundled model"
    )
    parser.add_argument(
        "--dashboard", action="store_true", help="only how soon the dashboard shows something over a large ledger"
    )
    parser.add_argument(
        "--beside-dashboard", action="store_true", help="only what requests suffer while the dashboard is used"
    )
    parser.add_argument("--out", type=Path, default=OUT, help="where results and logs go (default bench/out)")
    return parser.parse_args(words)


def _file(text: str) -> Path:
    path = Path(text).absolute()
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    return path


def _names(known: Any) -> Any:
    def split(text: str) -> list[str]:
        wanted = text.split(",")
        unknown = [name for name in wanted if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
        return wanted

    return split


def run_codecs(options: argparse.Namespace) -> int:
    """What the dialects cost."""
    judgements = measure_codecs(QUICK_REPEATS if options.quick else REPEATS)
    return _tell("codecs", "Codecs: the fastest of many runs, one core, no sockets", judgements, options)


def run_decisions(options: argparse.Namespace) -> int:
    """What the router's decisions cost."""
    judgements = measure_decisions(QUICK_REPEATS if options.quick else DECISION_REPEATS)
    return _tell("decisions", "Decisions: CPU time of the fastest of many runs", judgements, options)


def run_ledger(options: argparse.Namespace) -> int:
    """What the ledger costs."""
    quick = (QUICK_REPEATS, QUICK_ROWS) if options.quick else (LEDGER_REPEATS, options.ledger_rows)
    judgements, beside = measure_ledger(*quick)
    title = "The ledger: CPU time of the fastest of many runs; reports by the clock"
    code = _tell("ledger", title, judgements, options, beside)
    print("\nto compare, by the clock:")
    for name, value_us in beside.items():
        print(f"{name}: {value_us:.1f} us")
    return code


def run_in_process(options: argparse.Namespace) -> int:
    """What a routed request costs."""
    costs = measure_in_process(QUICK_REPEATS if options.quick else IN_PROCESS_REPEATS)
    title = "A routed request in process: CPU time of the loop's thread in the fastest of many batches"
    code = _tell("in_process", title, judge_in_process(costs), options, asdict(costs))
    print(f"\nwithout a record {costs.plain_us:.1f} us; with the ledger {costs.booked_us:.1f} us,", end=" ")
    print(f"and with the store's own thread {costs.all_us:.1f} us")
    return code


def _say(line: str) -> None:
    """Progress, apart from what is printed of the results."""
    print(line, file=sys.stderr, flush=True)


def run_beside_local(bench: Bench, options: argparse.Namespace) -> int:
    """What remote requests suffer beside the local worker."""
    model: Path | None = options.local_model
    idle, busy = measure_beside_local(bench, 1 if options.quick else LOCAL_ROUNDS, _say, model)
    seen = {
        "model": None if model is None else model.name,
        "idle": [asdict(one) for one in idle],
        "busy": {load: [asdict(one) for one in conditions] for load, conditions in busy.items()},
    }
    title = f"Remote requests beside {'the local demonstration model' if model is None else model.name}"
    return _tell("beside_local", title, judge_beside_local(idle, busy), options, seen)


def run_beside_dashboard(bench: Bench, options: argparse.Namespace) -> int:
    """What requests suffer while somebody looks at the dashboard."""
    pairs, rows = (1, QUICK_ROWS) if options.quick else (DASHBOARD_PAIRS, options.ledger_rows)
    alone, used, pages_ms = measure_beside_dashboard(bench, pairs, rows, _say)
    judgements = judge_beside_dashboard(alone, used, pages_ms)
    seen = {"alone": [asdict(one) for one in alone], "used": [asdict(one) for one in used], "pages_ms": pages_ms}
    title = f"Requests while the dashboard is used over {rows:,} rows"
    return _tell("beside_dashboard", title, judgements, options, seen)


def run_dashboard(bench: Bench, options: argparse.Namespace) -> int:
    """How soon the dashboard shows something."""
    repeats, rows = (1, QUICK_ROWS) if options.quick else (DASHBOARD_REPEATS, options.ledger_rows)
    judgements, seen = measure_dashboard(bench, rows, repeats, _say)
    title = f"The dashboard over {rows:,} rows: medians of {repeats}"
    return _tell("dashboard", title, judgements, options, seen | {"rows": rows})


_BESIDE = {"dashboard": run_dashboard, "beside_local": run_beside_local, "beside_dashboard": run_beside_dashboard}
"""What is measured of a gateway that runs, by its option."""
_WITHOUT_TOOLS = {"codecs": run_codecs, "decisions": run_decisions, "in_process": run_in_process, "ledger": run_ledger}
"""What is measured without a socket, by its option."""


def _tell(name: str, title: str, judgements: Sequence[Judgement], options: argparse.Namespace, seen: Any = None) -> int:
    """Keep what was measured alone, print it, and give the exit code."""
    out: Path = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    keep(name, judgements, out / "results.json", seen)
    print_bars(title, judgements)
    return _gate(judgements, options)


def _gate(judgements: Sequence[Judgement], options: argparse.Namespace) -> int:
    failed = any(judgement.status == "FAIL" for judgement in judgements)
    return EXIT_BAR_FAILED if failed and options.gate else 0


def run(options: argparse.Namespace) -> int:
    """Measure, print, keep; the exit code."""
    for wanted, measure in _WITHOUT_TOOLS.items():
        if getattr(options, wanted):
            return measure(options)
    if options.profile == IN_PROCESS:
        print(profile_in_process())
        return 0
    tools = build_tools()
    out: Path = options.out.resolve()
    bodies = out / "bodies"
    bodies.mkdir(parents=True, exist_ok=True)
    write_bodies(bodies)
    modes = [mode for mode in MODES if options.modes is None or mode.name in options.modes]
    if options.quick:
        modes = [shortened(mode) for mode in modes]
    rounds = 1 if options.quick else options.rounds
    # Beside something else nothing is pinned: where the system puts the two is part of what is measured.
    beside = next((measure for wanted, measure in _BESIDE.items() if getattr(options, wanted)), None)
    cores = Cores.choose() if beside is None else Cores(None, None)
    if cores.load is not None:
        os.sched_setaffinity(0, {cores.load})
    with MockUpstream(tools.mock) as mock:
        patience = 0 if options.quick else options.patience
        bench = Bench(tools, mock, bodies, out, cores, patience)
        if beside is not None:
            return beside(bench, options)
        if options.profile:
            print(profile_mode(bench, next(mode for mode in MODES if mode.name == options.profile)))
            return 0
        names = options.targets or list(BUILDERS)
        record = run_rounds(bench, names, modes, rounds, _say)
    if "mixgate" in names:
        record.import_s, record.import_note = measure_import()
    results = record.as_json() | {"machine": describe_machine(), "rounds": rounds, "pinned": cores.target is not None}
    save(results, out / "results.json")
    judgements = print_report(results)
    if "mixgate" in names and "mixgate" not in record.versions:
        return EXIT_NOT_MEASURED
    return _gate(judgements, options)


def main(words: Sequence[str] | None = None) -> int:
    """Run one call of the command."""
    options = parse(words)
    try:
        if options.markdown:
            print(markdown(json.loads((options.out / "results.json").read_text())))
            return 0
        return run(options)
    except (BenchError, UnavailableError) as error:
        print(f"bench: {error}", file=sys.stderr)
    except FileNotFoundError as error:
        print(f"bench: {error.filename} is not there: run `make bench` first", file=sys.stderr)
    return EXIT_NOT_MEASURED


if __name__ == "__main__":
    sys.exit(main())
