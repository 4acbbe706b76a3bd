"""`mixgate uptime`: how well each Endpoint answers, how fast, how it stands and why."""

import time
from collections.abc import Mapping
from typing import Any, Final

import click
import msgspec

from gateway.cli.sheets import print_json, print_sheet
from gateway.cli.windows import US_PER_S, Span, clock, form_of, forms, read_ledger
from gateway.reports.sparkline import sparkline
from gateway.reports.uptime import DAYS, WINDOWS_MINUTES, EndpointUptime, Percentiles, read_uptime

BARS_FROM: Final = 0.9
"""Uptime of the lowest bar: worse days look no worse."""
_STANDING: Final = {"standing": "STANDING", "cause": "CAUSE"}


@click.command("uptime")
@click.option(
    "--window",
    "window_s",
    type=Span(),
    default="1d",
    show_default=True,
    help="Over which answers, times to the first token and tokens per second are counted: 30m, 2h, 7d.",
)
@click.option("--endpoint", "endpoints", multiple=True, help="Only this one; several may be given.")
@forms
def command(window_s: float, endpoints: tuple[str, ...], *, as_json: bool, as_csv: bool) -> None:
    """Show the uptime of every Endpoint over 5 minutes, 30 minutes, a day and 30 days, and how fast it was.

    Uptime is good answers as a share of good ones and failures of the provider; what a client got wrong, rate limits
    and cancelled requests count neither way. Days are of UTC; the curve has one bar for each of the last 30, the
    lowest for 90 % and below, a gap where nothing was asked. Times to the first token come from histograms that are
    added up, tokens per second from the newest 50,000 good answers in the ledger.
    """
    form = form_of(as_json=as_json, as_csv=as_csv)
    now_s = time.time()
    found = read_ledger(lambda reader: read_uptime(reader, now_s, window_s))
    if endpoints:
        found = tuple(one for one in found if one.endpoint in endpoints)
    if form == "json":
        print_json([msgspec.to_builtins(one) for one in found])
        return
    columns = {"endpoint": "ENDPOINT", **{name: name.upper() for name in WINDOWS_MINUTES}}
    if form == "table":
        columns["curve"] = f"{DAYS} DAYS"
    columns |= {"ttft_p50": "TTFT P50", "ttft_p99": "P99", "pace_p50": "TOK/S P50", "pace_p99": "P99", **_STANDING}
    if form == "csv":
        columns |= {"since": "", "ok": "", "failed": "", "rate_limited": ""}
    print_sheet("Uptime", columns, [_row(one, as_csv=form == "csv") for one in found], form, curves="curve")


def _row(one: EndpointUptime, *, as_csv: bool) -> Mapping[str, Any]:
    share = _exactly if as_csv else _percent
    seconds = _exactly if as_csv else _seconds
    pace = _exactly if as_csv else _rounded
    return {
        "endpoint": one.endpoint,
        **{name: share(value) for name, value in one.uptime.items()},
        "curve": sparkline(one.days, low=BARS_FROM, high=1.0),
        "ttft_p50": seconds(_of(one.ttft_s, "p50")),
        "ttft_p99": seconds(_of(one.ttft_s, "p99")),
        "pace_p50": pace(_of(one.tokens_per_s, "p50")),
        "pace_p99": pace(_of(one.tokens_per_s, "p99")),
        "standing": one.standing,
        "cause": one.cause,
        "since": None if one.since_unix_s is None else clock(int(one.since_unix_s * US_PER_S)),
        "ok": one.ok,
        "failed": one.failed,
        "rate_limited": one.rate_limited,
    }


def _of(figures: Percentiles | None, name: str) -> float | None:
    return None if figures is None else getattr(figures, name)


def _exactly(value: float | None) -> Any:
    return None if value is None else round(value, 6)


def _percent(value: float | None) -> str | None:
    # Rounded down: 100 % is said of nobody who failed once.
    return None if value is None else f"{int(value * 10_000) / 100:g} %"


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f} s"


def _rounded(value: float | None) -> str | None:
    return None if value is None else f"{value:.0f}"
