"""A day of traffic through a whole gateway, with figures worked out by hand: every report gives just these."""

import asyncio
import json
from datetime import UTC, datetime
from fractions import Fraction

from click.testing import CliRunner

from gateway.cli import main
from tests.fakes.duo import PREFILLING, Place, config_of, stage
from tests.fakes.money import FAST, answers, ask_whole, rows
from tests.fakes.scripted import fails

PLACES = {
    0: Place("", price="{input: 1, output: 2, cache_read: 0.1}", capabilities=PREFILLING),
    1: Place("", price="{input: 3, output: 10}", capabilities=PREFILLING),
}


def used(read, written, cached=0):
    details = {"prompt_tokens_details": {"cached_tokens": cached}} if cached else {}
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written, **details}


def usd(text):
    return Fraction(text)


async def run(*words):
    done = await asyncio.to_thread(CliRunner().invoke, main, words)
    assert done.exit_code in {0, 1}, done.output
    assert "Traceback" not in done.output
    return done


async def test_a_scripted_day_gives_the_figures_of_a_hand_in_every_report(tmp_path, monkeypatch):
    first = [
        answers(used(1000, 100)),  # 1000 * 1 + 100 * 2 = 1200 micro-USD
        answers(used(1000, 100, cached=600)),  # 400 * 1 + 600 * 0.1 + 100 * 2 = 660
        fails(400, {"error": {"message": "no", "type": "invalid_request_error"}}),  # 0
        *[fails(503)] * 20,  # 0 each
    ]
    second = [answers(used(900, 200))]  # 900 * 3 + 200 * 10 = 4700
    async with stage(tmp_path, first, second, places=PLACES, limits=FAST) as on:
        for _ in range(4):
            await ask_whole(on)
        found = await rows(on)
        config = tmp_path / "again.yaml"
        urls = [
            Place(provider.base_url, price=PLACES[n].price, capabilities=PREFILLING)
            for n, provider in enumerate(on.providers)
        ]
        config.write_text(config_of(*urls))
        monkeypatch.setenv("MIXGATE_HOME", str(on.running.gateway._home))
        # What p0 would send: its answers all have one id, and one of them it says was dearer by a nano-dollar.
        day = datetime.fromtimestamp(found[0].unix_us / 1e6, UTC).strftime("%Y-%m-%d")
        bill = tmp_path / "bill.csv"
        bill.write_text(f"date,model,id,cost\n{day},up,{found[0].upstream_id},0.001860001\n")
        told = {
            "spend": await run("spend", "--by", "endpoint", "--json", "--since", "1d"),
            "requests": await run("requests", "--json"),
            "over": await run("requests", "--json", "--failed-over"),
            "top": await run("top", "--json", "--by", "model"),
            "uptime": await run("uptime", "--json"),
            "what_if": await run(
                *("what-if", "--config", str(config), "--json", "--since", "1d"),
                *("--on", "p1/up", "--policy", "ordered", "--cheapest", "--no-cache", "--first-choice"),
            ),
            "reconcile": await run("reconcile", str(bill), "--provider", "p0", "--json"),
            "savings": await run("what-if", "--config", str(config), "--savings", "--json", "--since", "1d"),
        }
    said = {name: json.loads(done.output) for name, done in told.items()}
    assert sum(row.cost_in_nusd for row in found) == 6_560_000
    assert {one["endpoint"]: one["cost_usd"] for one in said["spend"]} == {"p0/up": "0.00186", "p1/up": "0.0047"}
    assert sorted(one["cost_usd"] for one in said["requests"]["requests"]) == ["0.00", "0.00066", "0.0012", "0.0047"]
    assert [one["endpoint"] for one in said["over"]["requests"]] == ["p1/up"]
    assert [one["cost_usd"] for one in said["top"]["model"]] == ["0.00656"]
    what_if = said["what_if"]
    assert (what_if["requests"], what_if["as_was_usd"], what_if["without_record"]) == (4, "0.00656", 0)
    lines = {line["kind"]: line for line in what_if["lines"]}
    # 1000 * 3 + 100 * 10 = 4000 each of the first two, and the last as it was; the refused one had no answer.
    assert (lines["on"]["would_have_usd"], lines["on"]["requests"], lines["on"]["from_ledger"]) == ("0.0127", 3, 1)
    assert lines["policy"]["would_have_usd"] == lines["policy"]["as_was_usd"] == "0.00656"
    assert lines["cheapest"]["would_have_usd"] == "0.00656"
    assert lines["no_cache"]["difference_usd"] == "0.00054"  # 600 * 0.9
    # The last one at p0: 900 * 1 + 200 * 2 = 1300.
    assert lines["first_choice"]["would_have_usd"] == "0.00316"
    (difference,) = said["reconcile"]["differences"]
    assert (difference["kind"], difference["difference_usd"]) == ("amount", "0.000000001")
    savings = said["savings"]
    assert savings["prompt_cache_usd"] == "0.00054"
    assert (savings["failovers"]["requests"], savings["failovers"]["dearer_usd"]) == (1, "0.0034")
    # The dearest that could have answered is p1 for all three.
    assert usd(savings["routing_usd"]) == usd("0.0127") - usd("0.00656")
