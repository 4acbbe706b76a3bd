"""A request whose every text is an attack on whoever shows it: columns of the ledger, members of a decision record."""

import time

from gateway.explain.record import Decision, Option, Record, Rescued, Tried, encode
from gateway.ledger.costs import tariff_of
from gateway.ledger.entry import Intent, Settlement, row_of
from gateway.routing.ask import Ask
from gateway.routing.exclusion import Exclusion
from gateway.state.blocks import Packed
from gateway.state.entries import Batch
from gateway.state.writer import EndpointEvent
from providers.base import Price
from tests.fakes.scripted_day import gen_id

SHAPES = (
    '<img src=x onerror="window.hit={0}">{0}',
    "\"'><script>window.hit={0}</script>{0}",
    "<svg/onload=window.hit={0}>{0}",
    "</title></style><iframe srcdoc='<script>parent.hit={0}</script>'>{0}",
    "javascript:window.hit={0}//{0}",
    "{{{{constructor.constructor('window.hit={0}')()}}}}{0}",
)


class Attacks:
    """Texts that show where they were let in: each has a number of its own."""

    def __init__(self):
        self.by_field = {}

    def __call__(self, field):
        number = len(self.by_field) + 1
        self.by_field[field] = SHAPES[number % len(SHAPES)].format(f"{number:03d}")
        return self.by_field[field]


def write(writer):
    """Put it into a store. Gives the request's id and the attacks by field."""
    now_s, say = time.time(), Attacks()
    name = gen_id(now_s - 20, 666)
    tariff = tariff_of(say("price endpoint"), Price(1_000_000, 2_000_000), ())
    sent_us = int((now_s - 20) * 1e6)
    names = [say(field) for field in ("key_id", "route", "model", "endpoint", "provider", "surface")]
    own = {field: say(field) for field in ("app", "referer", "user", "session")}
    tags = (say("first tag"), say("second tag"))
    intent = Intent(f"{name}/1", sent_us, *names, True, tariff.snapshot.price_id, 100, tags=tags, **own)
    counted = (100, 50, 0, 0, 0, "provider", 1_345_678, "price", 120, 900)
    settlement = Settlement(sent_us + 900_000, "failed", say("code"), *counted, say("upstream id"))
    writer.write_ledger(Batch([row_of(intent, settlement)], [tariff.snapshot]))
    writer.write_records([Packed(name, encode(record(name, now_s - 20, say)))], now_s)
    writer.write_events([EndpointEvent(now_s - 30, say("event endpoint"), say("event standing"), say("event cause"))])
    return name, say.by_field


def record(name, unix_s, say):
    """Its decision record."""
    done = {"emulated": (say("emulated"),), "adapted": (say("adapted"),)}
    return Record(
        id=name, unix_s=unix_s, requested=(say("first name"), say("second name")), surface=say("record surface"),
        outcome="failed", ask=Ask(prompt_tokens=100, output_tokens=50), draw=0.5, now_s=100.0, table=say("table"),
        catalogue=say("catalogue"),
        decision=Decision(
            say("decision route"), say("policy"), (Option(say("candidate"), 0, 1_000_000, 0.5),),
            (Option(say("resting"), 0, 1_000_000, 0.5),),
            (Exclusion(say("excluded"), say("exclusion code"), say("exclusion reason"), 1, 2),),
        ),
        attempts=(Tried(1, say("tried"), "failed", "planned", say("attempt code"), 503, 1, 120, 900, **done),),
        duration_ms=900, code=say("record code"), caller=say("caller"),
        rescued=Rescued(say("rescued by"), say("rescued from"), say("continued at"), 80), cost_in_nusd=1_345_678,
    )  # fmt: skip
