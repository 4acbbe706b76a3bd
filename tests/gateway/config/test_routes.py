"""What a Route may say beside its Endpoints, what it means when it says nothing, and what a row knows for routing."""

from pathlib import Path

import pytest

from gateway.config.catalogue import Catalogue, Route, ScoreWeights, Timeouts
from gateway.config.load import load
from providers.base import DataPolicy

ROWS = """\
providers:
  l: {dialect: local, models: {x: {file: x.gguf, serves: m}}}
  b: {dialect: openai, base_url: http://h, models: {y: {serves: m}, z: {serves: m}}}
routes:
"""


def read(tmp_path: Path, text: str) -> Catalogue:
    path = tmp_path / "providers.yaml"
    path.write_text(text)
    return load(path, {})


def route(tmp_path: Path, text: str) -> Route:
    return read(tmp_path, f"{ROWS}  m: {{{text}}}\n").routes["m"]


def test_a_route_that_says_nothing_is_the_same_as_one_that_nobody_wrote(tmp_path: Path):
    implicit = read(tmp_path, ROWS).routes["m"]
    written = route(tmp_path, "")
    assert implicit.implicit
    assert not written.implicit
    for name in Route.__struct_fields__:
        assert name == "implicit" or getattr(written, name) == getattr(implicit, name), name
    assert (written.rescue, written.hedge, written.compress, written.timeouts) == (True, False, False, Timeouts())


def test_all_keys_of_a_route_arrive(tmp_path: Path):
    found = route(
        tmp_path,
        "policy: score, score: {cost: 2, ttft: 0.5}, local: first, upcast: true, rescue: false, hedge: true, "
        "overflow: {compress: true}, cache: {ttl_s: 60}, timeouts: {first_token_timeout_s: 0.5, total_timeout_s: 60}",
    )
    assert found.score == ScoreWeights(cost=2, ttft=0.5, throughput=0, uptime=0, queue=0)
    assert (found.upcast, found.rescue, found.hedge, found.compress) == (True, False, True, True)
    assert found.cache_ttl_s == 60
    assert found.timeouts == Timeouts(first_token_timeout_s=0.5, total_timeout_s=60)


def test_a_score_that_is_not_written_counts_every_figure_the_same(tmp_path: Path):
    assert route(tmp_path, "policy: score").score == ScoreWeights(1, 1, 1, 1, 1)


def test_every_endpoint_of_a_weighted_route_has_a_weight(tmp_path: Path):
    assert route(tmp_path, "policy: weighted, weights: {b/y: 3, l/x: 0.5}").weights == {"b/y": 3, "b/z": 0, "l/x": 0.5}


@pytest.mark.parametrize(
    ("text", "place", "order"),
    [
        ("", "last", ("b/y", "b/z", "l/x")),
        ("policy: ordered", "by_policy", ("l/x", "b/y", "b/z")),
        ("policy: ordered, local: last", "last", ("b/y", "b/z", "l/x")),
        ("local: first, endpoints: [b/y, l/x, b/z]", "first", ("l/x", "b/y", "b/z")),
        ("local: by_policy, endpoints: [b/y, l/x, b/z]", "by_policy", ("b/y", "l/x", "b/z")),
    ],
)
def test_local_endpoints_stand_where_the_route_puts_them(tmp_path: Path, text: str, place: str, order: tuple[str, ...]):
    found = route(tmp_path, text)
    assert (found.local, found.endpoints) == (place, order)


def test_an_endpoint_asked_for_by_its_id_stands_where_it_stands(tmp_path: Path):
    found = read(tmp_path, ROWS).find_route("l/x")
    assert found is not None
    assert (found.policy, found.local, found.endpoints) == ("ordered", "by_policy", ("l/x",))


def test_what_routing_asks_of_a_row_arrives_and_unknown_stays_unknown(tmp_path: Path):
    catalogue = read(
        tmp_path,
        "providers:\n"
        "  p:\n    dialect: openai\n    base_url: http://h\n    region: eu-west-3\n"
        "    data_policy: {collects: false}\n    models:\n"
        "      m: {quantization: fp8, distillable: true, parameters: [seed, tools, seed]}\n"
        "      n: {}\n"
        "      o: {parameters: []}\n"
        "  q: {dialect: openai, base_url: http://h, models: {m: {}}}\n"
        "  l: {dialect: local, models: {x: {file: x.gguf}}}\n",
    )
    one, nothing = catalogue.endpoints["p/m"], catalogue.endpoints["q/m"]
    assert (one.quantization, one.region, one.distillable) == ("fp8", "eu-west-3", True)
    assert one.parameters == {"seed", "tools"}
    assert one.data == catalogue.providers["p"].data == DataPolicy(collects=False, retains=None)
    assert catalogue.endpoints["p/o"].parameters == frozenset()
    assert catalogue.endpoints["p/n"].parameters is None
    assert (nothing.quantization, nothing.region, nothing.distillable) == (None, None, None)
    assert nothing.data == DataPolicy(None, None)
    # What goes to the worker on this machine goes nowhere else.
    assert catalogue.endpoints["l/x"].data == DataPolicy(collects=False, retains=False)


def test_only_a_router_is_told_which_names_are_ours(tmp_path: Path):
    catalogue = read(
        tmp_path,
        "providers:\n  Mine: {dialect: openai, base_url: http://h, models: {m: {}}}\n"
        "  openrouter: {dialect: openrouter, api_key: env:K, models: {m: {}}}\n",
    )
    assert catalogue.endpoints["Mine/m"].our_names == frozenset()
    assert catalogue.endpoints["openrouter/m"].our_names == {"mine", "openrouter"}


def test_a_smaller_fallback_is_warned_of_endpoint_or_route(tmp_path: Path):
    rows = (
        "providers:\n  b:\n    dialect: openai\n    base_url: http://h\n"
        "    models: {y: {serves: m, context_tokens: 100}, z: {serves: n, context_tokens: 50}}\n"
        "routes:\n  m:\n    fallback:\n      - %s\n"
    )
    for target in ("n", "b/z"):
        (warning,) = read(tmp_path, rows % target).warnings
        assert warning.where.endswith(":9")
        assert "takes 50 tokens" in warning.message
    assert not read(tmp_path, rows.replace("fallback:\n      - %s", "upcast: true")).warnings
