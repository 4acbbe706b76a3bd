"""A store as a gateway leaves it: requests with their rows, decision records, minutes and events, all chosen."""

from datetime import UTC, datetime

from gateway.attempts import Attempt
from gateway.explain.trace import Packer, Trace
from gateway.ledger.costs import Ending, settlement_of, tariff_of
from gateway.ledger.entry import Intent, row_of
from gateway.routing.ask import Ask
from gateway.routing.decide import decide
from gateway.routing.table import prepare
from gateway.state.connection import FILE_NAME, open_writer
from gateway.state.entries import Batch
from gateway.state.writer import Writer
from providers.messages import Usage

US = 1_000_000
DAY_S = 86_400
START_S = 20_000 * DAY_S
"""A midnight of UTC."""
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def gen_id(unix_s, number):
    """As the gateway mints them: they sort by time."""
    millisecond, spelled = int(unix_s * 1000), ""
    for shift in range(45, -1, -5):
        spelled += _ALPHABET[millisecond >> shift & 31]
    return f"gen-{spelled}{number:016d}"


class Day:
    """Writes what is asked of it at once; a lazy one, when its file is looked for."""

    def __init__(self, home, catalogue, *, lazy=False):
        self._path = home / FILE_NAME
        self._lazy = lazy
        self._rows, self._prices, self._records = [], {}, []
        self.catalogue = catalogue
        self._writer = Writer(open_writer(self._path))
        self._pack = Packer()
        self._count = 0
        self._tables = {}
        self._tariffs = {}

    def close(self):
        self.flush()
        self._writer.close()

    @property
    def path(self):
        self.flush()
        return self._path

    def flush(self):
        if self._rows:
            self._writer.write_ledger(Batch(self._rows, [*self._prices.values()]))
        if self._records:
            self._writer.write_records(self._records, START_S)
        self._rows, self._prices, self._records = [], {}, []

    def tariff(self, endpoint_id):
        if endpoint_id not in self._tariffs:
            endpoint = self.catalogue.endpoints[endpoint_id]
            overrides = self.catalogue.price_overrides.get(endpoint_id, ())
            self._tariffs[endpoint_id] = tariff_of(endpoint_id, endpoint.price, overrides)
        return self._tariffs[endpoint_id]

    def table(self, *names):
        if names not in self._tables:
            self._tables[names] = prepare([self.catalogue.find_route(name) for name in names], self.catalogue, {})
        return self._tables[names]

    def ask(self, unix_s, attempts, *, route="m", ask=None, seen=None, draw=0.5, record=True, rescued=None, **facts):
        """One request. `attempts` are (endpoint, facts of its end); gives its id."""
        self._count += 1
        name = gen_id(unix_s, self._count)
        ask = ask or Ask(prompt_tokens=100, output_tokens=200)
        tried = []
        for number, (endpoint, how) in enumerate(attempts, 1):
            row, attempt = self._attempt(f"{name}/{number}", unix_s + number - 1, endpoint, how, route, ask, facts)
            self._rows.append(row)
            tried.append(attempt)
            snapshot = self.tariff(endpoint).snapshot
            self._prices[snapshot.price_id] = snapshot
        if record:
            self._record(name, unix_s, ask, seen or {}, draw, tried, route, rescued)
        if not self._lazy:
            self.flush()
        return name

    def minutes(self, *rows):
        self._writer.write_minutes(rows)

    def events(self, *events):
        self._writer.write_events(events)

    def _attempt(self, attempt_id, unix_s, endpoint_id, how, route, ask, facts):
        endpoint, tariff = self.catalogue.endpoints[endpoint_id], self.tariff(endpoint_id)
        how = {"outcome": "ok", "input": 100, "output": 50, "ttft_ms": 400, "duration_ms": 1400} | how
        refused = how["outcome"] == "failed" and not how.get("cut")
        usage = Usage(
            input_tokens=how["input"],
            output_tokens=how["output"],
            cached_input_tokens=how.get("cached"),
            cost_in_nusd=how.get("reported"),
        )
        intent = Intent(
            attempt_id,
            int(unix_s * US),
            facts.get("key_id", "k"),
            route,
            endpoint.model,
            endpoint_id,
            endpoint.provider,
            "chat",
            True,
            tariff.snapshot.price_id,
            ask.prompt_tokens,
            app=facts.get("app", ""),
            tags=facts.get("tags", ()),
        )
        ending = Ending(
            unix_us=int((unix_s + how["duration_ms"] / 1000) * US),
            outcome=how["outcome"],
            code=how.get("code"),
            usage=None if refused or how.get("cut") else usage,
            prompt_tokens=None if refused else usage.input_tokens,
            output_tokens=None if refused else usage.output_tokens,
            refused=refused,
            images=ask.images,
            ttft_ms=None if refused else how["ttft_ms"],
            duration_ms=how["duration_ms"],
            upstream_id=how.get("upstream_id"),
        )
        attempt = Attempt(
            number=int(attempt_id.rpartition("/")[2]),
            endpoint=endpoint,
            why="planned",
            started_s=0.0,
            outcome=how["outcome"],
            code=how.get("code"),
            usage=ending.usage,
        )
        return row_of(intent, settlement_of(intent.unix_us, ending, tariff)), attempt

    def _record(self, name, unix_s, ask, seen, draw, tried, route, rescued):
        table = self.table(route)
        now_utc = datetime.fromtimestamp(unix_s, UTC)
        plan = decide(table, ask, seen, now_s=100.0, draw=draw, now_utc=now_utc)
        trace = Trace(
            id=name,
            unix_s=unix_s,
            requested=(route,),
            surface="chat",
            caller="me",
            ask=ask,
            table=table,
            observations=seen,
            draw=draw,
            now_s=100.0,
            now_utc=now_utc,
            catalogue="",
            plan=plan,
            attempts=tried,
            outcome=tried[-1].outcome,
            code=tried[-1].code,
            ended_s=102.0,
            rescued=rescued,
        )
        self._records.append(self._pack(trace))
