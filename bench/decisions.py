"""What a decision of the router costs: 3, 20 and 1,000 Endpoints that are observed already, plainly and with wishes."""

import gc
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.figures import Judgement
from gateway.config.catalogue import Catalogue, GatewaySettings, Route
from gateway.observation import Observation, Quantiles
from gateway.routing.ask import Ask, Cutoffs, Preferences, PriceLimit
from gateway.routing.decide import decide
from gateway.routing.table import prepare
from providers.base import Capabilities, DataPolicy, Endpoint, Price

REPEATS = 60
"""The fastest of so many runs counts: whatever disturbs a run only makes it slower."""
DECISIONS_MAX_US = {3: 10.0, 20: 60.0, 1000: 2000.0}
"""By the number of Endpoints."""
RUN_MIN = 10
"""So many decisions in one run, or so many Endpoints decided about, whichever is more."""
RUN_ENDPOINTS = 1500
POLICIES = ("balanced", "price", "score")
PLAIN = Ask(needed=("tools",), prompt_tokens=1000, output_tokens=500)
WISHES = Ask(
    needed=("tools",),
    prompt_tokens=1000,
    output_tokens=500,
    parameters=("temperature", "seed"),
    preferences=Preferences(
        order=("p1", "p2"),
        require_parameters=True,
        data_collection="deny",
        zdr=True,
        distillable=True,
        ignore=("p0/other",),
        quantizations=("fp8", "bf16"),
        min_throughput=Cutoffs(p50=20, p90=10),
        max_latency=Cutoffs(p99=5),
        max_price=PriceLimit(input_in_pusd=10**8, output_in_pusd=10**8),
    ),
    warm_endpoint="p1/m",
    warm_tokens=800,
    permitted=("m",),
    budget_in_nusd=10**9,
)


def measure_decisions(repeats: int = REPEATS) -> list[Judgement]:
    """Each size against its bar, in microseconds of CPU."""
    judged: list[Judgement] = []
    for endpoints, limit_us in DECISIONS_MAX_US.items():
        cases = {f"{policy}": decision(endpoints, policy, PLAIN) for policy in POLICIES}
        cases["balanced, every wish"] = decision(endpoints, "balanced", WISHES)
        for name, work in cases.items():
            cost_us = _fastest_us(work, max(RUN_MIN, RUN_ENDPOINTS // endpoints), repeats)
            status = "PASS" if cost_us <= limit_us else "FAIL"
            judged.append(Judgement(f"decide over {endpoints:,}, {name}", "us", limit_us, None, cost_us, status))
    return judged


def decision(count: int, policy: str, ask: Ask) -> Callable[[], object]:
    """One decision over so many Endpoints, all of them eligible."""
    endpoints = {f"p{number}/m": _endpoint(number) for number in range(count)}
    route = Route(name="m", endpoints=tuple(endpoints), policy=policy)  # type: ignore[arg-type]  # one of POLICIES
    catalogue = Catalogue(
        gateway=GatewaySettings(),
        providers={},
        endpoints=endpoints,
        routes={"m": route},
        aliases={},
        local_models=(),
        price_overrides={},
        warnings=(),
        path=Path("providers.yaml"),
        digest="",
        watched=(),
    )
    seen = {name: _observation(number) for number, name in enumerate(endpoints)}
    decided = partial(decide, prepare([route], catalogue, {}), ask, seen, now_s=1.0, draw=0.37)
    candidates = len(decided().candidates)
    if candidates != count:
        raise AssertionError(f"{candidates} of {count} Endpoints are Candidates, so the figure would mean nothing")
    return decided


def _endpoint(number: int) -> Endpoint:
    return Endpoint(
        id=f"p{number}/m",
        provider=f"p{number}",
        model="m",
        upstream_model="m",
        base_url="http://127.0.0.1:1/v1",
        context_tokens=32768,
        max_output_tokens=8192,
        price=Price(input_in_pusd=100_000 + number, output_in_pusd=300_000 + number, cache_read_in_pusd=10_000),
        capabilities=Capabilities(tools=True),
        quantization="fp8",
        data=DataPolicy(collects=False, retains=False),
        distillable=True,
        parameters=frozenset({"temperature", "seed", "tools"}),
    )


def _observation(number: int) -> Observation:
    return Observation(
        ttft_s=0.3 + number % 7 / 10,
        tokens_per_s=40.0 + number % 11,
        uptime=0.999,
        in_flight=number % 3,
        latency=Quantiles(0.3, 0.5, 0.8, 1.5),
        throughput=Quantiles(60, 50, 40, 30),
    )


def _fastest_us(work: Callable[[], object], times: int, repeats: int) -> float:
    """CPU time of one call, in the fastest of several runs. The collector stays on: a decision pays for it too."""
    best_ns: float = float("inf")
    gc.collect()
    for _ in range(repeats):
        started_ns = time.process_time_ns()
        for _ in range(times):
            work()
        best_ns = min(best_ns, (time.process_time_ns() - started_ns) / times)
    return best_ns / 1000
