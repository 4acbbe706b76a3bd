"""A gateway over a generated ledger that ends now, and somebody who is signed in to its dashboard."""

import json
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from pathlib import Path

from bench.generated_ledger import DAY_S, DAYS, MODELS, PROVIDERS, fill, fill_spans
from bench.measure import Bench
from bench.running import RunningTarget
from bench.targets import Target, UnavailableError, mixgate_config
from gateway.state.connection import FILE_NAME

TIMEOUT_S = 10.0
ADMIN_TOKEN = "bench-admin-token-0123456789abcdef"  # noqa: S105 - of this run alone
CHART_POINTS, CHART_SERIES = 30, 9
_JSON = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class Visited:
    """A gateway that runs, and what opens its dashboard."""

    running: RunningTarget
    target: Target
    cookie: str
    """Name and value, of a session as admin."""

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.running.port}"

    def connect(self) -> "Visitor":
        """Another connection of somebody who is signed in."""
        return Visitor(self.running.port, self.cookie)


class Visitor:
    """Asks the dashboard over one connection."""

    def __init__(self, port: int, cookie: str) -> None:
        self._headers = {"cookie": cookie, "origin": f"http://127.0.0.1:{port}"} if cookie else {}
        self._connection = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)

    def get(self, path: str) -> bytes:
        """What the dashboard's API answers.

        Raises:
            UnavailableError: It refuses.
            OSError: It does not answer.
        """
        return self._ask("GET", path)

    def draw(self) -> bytes:
        """A chart as large as that of a month.

        Raises:
            UnavailableError: It refuses.
            OSError: It does not answer.
        """
        return self._ask("POST", "chart", CHART_BODY)

    def time_ms(self, path: str) -> float:
        """How long one look-up takes."""
        began_s = time.perf_counter()
        self.get(path)
        return (time.perf_counter() - began_s) * 1000

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def _ask(self, method: str, path: str, body: str | None = None) -> bytes:
        headers = self._headers | (_JSON if body else {})
        self._connection.request(method, f"/dashboard/api/{path}", body, headers)
        response = self._connection.getresponse()
        text = response.read()
        if response.status != 200:
            raise UnavailableError(f"{path}: {response.status} {text[:200]!r}")
        return text


@contextmanager
def visit(bench: Bench, rows: int, say: Callable[[str], None]) -> Generator[Visited]:
    """A gateway over so many rows while the block runs; its file is removed then.

    Raises:
        UnavailableError: The gateway can't be run here, or its dashboard does not answer.
    """
    target, place = bench.prepare("mixgate")
    home = Path(target.environment["MIXGATE_HOME"])
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = home / FILE_NAME
    _remove(path)
    say(f"writing a ledger of {rows:,} rows")
    now_s = int(time.time())
    (place.folder / "providers.yaml").write_text(_config(place.upstream_port))
    target = replace(target, environment={**target.environment, "BENCH_ADMIN_TOKEN": ADMIN_TOKEN})
    try:
        fill(path, rows, since_unix_s=now_s - DAYS * DAY_S)
        fill_spans(path, now_s)
        with bench.start(target, place) as running:
            running.wait_until_idle()
            yield Visited(running, target, _sign_in(running.port))
    finally:
        _remove(path)


def _config(upstream_port: int) -> str:
    """That of the other measurements, and as many Endpoints as the ledger has names of."""
    config = json.loads(mixgate_config(upstream_port))
    config["gateway"]["admin_token"] = "env:BENCH_ADMIN_TOKEN"  # noqa: S105 - where it is found
    (mock,) = config["providers"].values()
    one = next(iter(mock["models"].values()))
    for number in range(PROVIDERS):
        models = {f"model-{model}": one | {"serves": f"vendor/model-{model}"} for model in range(MODELS)}
        config["providers"][f"p{number}"] = mock | {"models": models}
    return json.dumps(config, indent=1)


def _sign_in(port: int) -> str:
    """The cookie of a session. Once, as tries to sign in are counted."""
    connection = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    headers = _JSON | {"origin": f"http://127.0.0.1:{port}"}
    connection.request("POST", "/dashboard/api/sign-in", json.dumps({"token": ADMIN_TOKEN}), headers)
    response = connection.getresponse()
    text = response.read()
    connection.close()
    if response.status != 200:
        raise UnavailableError(f"signing in: {response.status} {text[:200]!r}")
    return (response.headers.get("set-cookie") or "").partition(";")[0]


def _remove(path: Path) -> None:
    """The ledger, which may have gigabytes, and what belongs to it."""
    for tail in ("-wal", "-shm", ""):
        path.with_name(path.name + tail).unlink(missing_ok=True)


def _chart() -> str:
    """As the page of the overview asks for it."""
    labels = [f"2026-01-{day:02d}" for day in range(1, CHART_POINTS + 1)]
    series = [
        {
            "name": f"vendor/model-{number}",
            "colour": number,
            "values": [(number * 37 + at * 11) % 97 + 0.25 for at in range(CHART_POINTS)],
            "texts": [f"vendor/model-{number}, {label}: $12.34, 1,234 requests" for label in labels],
            "links": [f"/dashboard/requests?model=vendor%2Fmodel-{number}&since={label}" for label in labels],
        }
        for number in range(CHART_SERIES)
    ]
    said = {"kind": "stacked-bars", "unit": "usd", "label": "Spend over time by model", "labels": labels}
    return json.dumps(said | {"width": 1180, "height": 280, "every": 2, "series": series})


CHART_BODY = _chart()
