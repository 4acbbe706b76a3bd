"""From a good file to a Catalogue."""
# ruff: noqa: E501, S104  # whole rows of YAML read best on one line; addresses are only compared

from datetime import date
from pathlib import Path

import pytest

from gateway.app import local_models
from gateway.config.catalogue import Catalogue
from gateway.config.dialects import DIALECTS as DIALECT_DEFAULTS
from gateway.config.load import load
from gateway.config.locations import PACKAGED_CONFIG, find_config, home_folder, model_file
from gateway.errors import ConfigError
from providers import DIALECTS
from providers.base import Price
from providers.quirks import Quirks

ROOT = Path(__file__).parents[3]
KEY = "sk-or-v1-0123456789abcdef"

DESIGN = """\
gateway: {host: 127.0.0.1, port: 8080}
providers:
  openrouter:
    dialect: openrouter
    api_key: env:OPENROUTER_API_KEY
    models:
      mistralai/mixtral-8x22b-instruct:
        serves: mixtral-8x22b
        context_tokens: 65536
        max_output_tokens: 65536
        price: {input: 2.00, output: 6.00}
        source: openrouter.ai model page
        as_of: 2026-10-19
  my-vllm:
    dialect: openai
    base_url: http://10.0.0.7:8000/v1
    models:
      mixtral-8x7b: {context_tokens: 32768, price: {input: 0, output: 0}}
  local:
    dialect: local
    models:
      tiny-mixtral: {file: bundled, serves: demo}
      mixtral-8x7b-q4: {file: Mixtral-8x7B-Instruct-v0.1.Q4_K_M.gguf, serves: mixtral-8x7b}
routes:
  mixtral-8x22b:
    aliases: [mistralai/mixtral-8x22b-instruct, mistral/mixtral-8x22b]
    policy: balanced
    endpoints: [openrouter/mistralai/mixtral-8x22b-instruct]
    fallback: [mixtral-8x7b]
"""


def read(tmp_path: Path, text: str, env: dict[str, str] | None = None, **options: object) -> Catalogue:
    path = tmp_path / "providers.yaml"
    path.write_text(text)
    return load(path, env or {}, **options)


def test_the_file_of_the_design_loads(tmp_path: Path):
    catalogue = read(tmp_path, DESIGN, {"OPENROUTER_API_KEY": KEY})
    remote = catalogue.endpoints["openrouter/mistralai/mixtral-8x22b-instruct"]
    assert remote.model == "mixtral-8x22b"
    assert remote.upstream_model == "mistralai/mixtral-8x22b-instruct"
    assert remote.base_url == "https://openrouter.ai/api/v1"
    assert remote.quirks.router_fields
    assert remote.price.input_in_pusd == 2_000_000
    assert remote.price.output_in_pusd == 6_000_000
    assert catalogue.endpoints["my-vllm/mixtral-8x7b"].price.input_in_pusd == 0
    assert catalogue.routes["mixtral-8x22b"].fallback == ("mixtral-8x7b",)
    assert catalogue.aliases["mistral/mixtral-8x22b"] == "mixtral-8x22b"
    assert catalogue.providers["openrouter"].api_key.reveal() == KEY
    assert all(entry.on for entry in catalogue.providers.values())
    assert [model.name for model in catalogue.local_models] == ["tiny-mixtral", "mixtral-8x7b-q4"]
    assert [model.slots for model in catalogue.local_models] == [8, 4]


def test_the_threads_of_a_local_model_reach_its_worker(tmp_path: Path):
    rows = "{big: {file: b.gguf, threads: 3}, small: {file: s.gguf}}"
    catalogue = read(tmp_path, f"providers: {{local: {{dialect: local, models: {rows}}}}}", {})
    assert [(one.name, one.threads) for one in local_models(catalogue)] == [("big", 3), ("small", None)]


def test_the_shipped_file_works_unedited_with_no_key():
    catalogue = load(PACKAGED_CONFIG, {})
    assert not catalogue.providers["openrouter"].on
    assert catalogue.providers["openrouter"].off_reason == "OPENROUTER_API_KEY is not set"
    assert catalogue.providers["openrouter"].variables == ("OPENROUTER_API_KEY",)
    assert catalogue.providers["local"].on
    assert catalogue.find_route("demo").endpoints == ("local/tiny-mixtral",)
    assert {"mixtral-8x22b", "mixtral-8x7b", "demo"} <= set(catalogue.routes)


def test_the_shipped_demonstration_model_stands_in_for_nothing():
    catalogue = load(PACKAGED_CONFIG, {})
    for route in catalogue.routes.values():
        if route.name != "demo":
            assert "local/tiny-mixtral" not in route.endpoints
            assert not {"demo", "local/tiny-mixtral"} & set(route.fallback)
    assert "emonstration" in catalogue.endpoints["local/tiny-mixtral"].description


def test_every_figure_of_the_shipped_file_has_a_source_and_a_date():
    catalogue = load(PACKAGED_CONFIG, {})
    for endpoint in catalogue.endpoints.values():
        if endpoint.id != "local/tiny-mixtral":
            assert endpoint.details["source"], endpoint.id
            assert endpoint.details["as_of"], endpoint.id
        for claim in endpoint.details.get("claims", ()):
            assert claim["source"]


def test_the_shipped_file_and_the_packaged_one_are_the_same():
    assert (ROOT / "providers.yaml").read_bytes() == PACKAGED_CONFIG.read_bytes()


def test_the_dialects_of_the_configuration_are_those_there_are():
    assert set(DIALECT_DEFAULTS) == set(DIALECTS)


def test_a_key_is_never_in_what_a_catalogue_prints(tmp_path: Path):
    catalogue = read(tmp_path, DESIGN, {"OPENROUTER_API_KEY": KEY})
    assert KEY not in repr(catalogue)


def test_a_served_model_has_an_implicit_route_in_file_order_with_local_last(tmp_path: Path):
    text = (
        "providers:\n  l: {dialect: local, models: {x: {file: x.gguf, serves: m}}}\n"
        "  b: {dialect: openai, base_url: http://b/v1, models: {y: {serves: m}}}\n"
        "  a: {dialect: openai, base_url: http://a/v1, models: {m: {}}}\n"
    )
    route = read(tmp_path, text).routes["m"]
    assert route.implicit
    assert route.policy == "balanced"
    assert route.endpoints == ("b/y", "a/m", "l/x")


@pytest.mark.parametrize(("policy", "order"), [("ordered", ("l/x", "b/y")), ("price", ("b/y", "l/x"))])
def test_a_written_order_puts_local_last_unless_it_is_to_be_kept(tmp_path: Path, policy: str, order: tuple[str, ...]):
    text = (
        "providers:\n  l: {dialect: local, models: {x: {file: x.gguf, serves: m}}}\n"
        "  b: {dialect: openai, base_url: http://b/v1, models: {y: {serves: m}}}\n"
        f"routes:\n  m: {{policy: {policy}, endpoints: [l/x, b/y]}}\n  n: {{policy: {policy}, endpoints: [l/x, b/y]}}\n"
    )
    catalogue = read(tmp_path, text)
    assert catalogue.routes["m"].endpoints == order
    assert catalogue.routes["n"].endpoints == order


def test_names_are_found_as_route_alias_model_endpoint_and_without_a_suffix(tmp_path: Path):
    catalogue = read(tmp_path, DESIGN)
    names = {
        "mixtral-8x22b": "mixtral-8x22b",
        "mistral/mixtral-8x22b": "mixtral-8x22b",
        "mistralai/mixtral-8x22b-instruct:free": "mixtral-8x22b",
        "mixtral-8x7b": "mixtral-8x7b",
        "mixtral-8x7b:nitro": "mixtral-8x7b",
        "my-vllm/mixtral-8x7b": "my-vllm/mixtral-8x7b",
        "demo": "demo",
    }
    assert {name: catalogue.find_route(name).name for name in names} == names
    assert catalogue.find_route("my-vllm/mixtral-8x7b").endpoints == ("my-vllm/mixtral-8x7b",)
    for unknown in ("", "Mixtral-8x7b", "mixtral-8x7b:nitro:nitro", "mixtral-8x7b:other", "tiny-mixtral"):
        assert catalogue.find_route(unknown) is None
    assert catalogue.near_names("mixtral-8x7")[0] == "mixtral-8x7b"


def test_the_demonstration_model_is_a_fallback_where_it_is_written_down(tmp_path: Path):
    catalogue = read(tmp_path, DESIGN.replace("fallback: [mixtral-8x7b]", "fallback: [mixtral-8x7b, demo]"))
    assert catalogue.routes["mixtral-8x22b"].fallback == ("mixtral-8x7b", "demo")


def test_a_fallback_may_be_named_by_an_alias(tmp_path: Path):
    text = DESIGN + "  mixtral-8x7b: {aliases: [small]}\n"
    text = text.replace("fallback: [mixtral-8x7b]", "fallback: [small]")
    assert read(tmp_path, text).routes["mixtral-8x22b"].fallback == ("mixtral-8x7b",)


def test_a_fallback_smaller_than_its_route_is_warned_of(tmp_path: Path):
    (warning,) = read(tmp_path, DESIGN).warnings
    assert "32768" in warning.message
    assert "65536" in warning.message
    assert warning.where.endswith(":29")


def test_facts_left_out_come_from_the_shipped_catalogue(tmp_path: Path):
    text = (
        "providers:\n  or:\n    dialect: openrouter\n    models:\n"
        "      mistralai/mixtral-8x22b-instruct: {serves: big, context_tokens: 1000}\n      other/model: {}\n"
    )
    catalogue = read(tmp_path, text)
    known = catalogue.endpoints["or/mistralai/mixtral-8x22b-instruct"]
    assert known.context_tokens == 1000
    assert known.price.input_in_pusd == 2_000_000
    assert known.capabilities.tools
    assert "price" in known.details["from_catalogue"]
    assert known.details["source"]
    unknown = catalogue.endpoints["or/other/model"]
    assert unknown.price is None
    assert unknown.context_tokens is None
    assert not unknown.capabilities.tools
    assert unknown.capabilities.streaming


def test_facts_are_not_borrowed_for_another_server(tmp_path: Path):
    text = (
        "providers:\n  mine:\n    dialect: openrouter\n    base_url: http://127.0.0.1:1/v1\n    models:\n"
        "      mistralai/mixtral-8x22b-instruct: {}\n"
    )
    assert read(tmp_path, text).endpoints["mine/mistralai/mixtral-8x22b-instruct"].price is None


def test_a_price_that_is_written_is_not_mixed_with_a_borrowed_one(tmp_path: Path):
    text = (
        "providers:\n  or:\n    dialect: openrouter\n    models:\n"
        "      mistralai/mixtral-8x22b-instruct: {price: {input: 1}, source: me}\n"
    )
    endpoint = read(tmp_path, text).endpoints["or/mistralai/mixtral-8x22b-instruct"]
    assert endpoint.price == Price(input_in_pusd=1_000_000)
    assert endpoint.details["source"] == "me"


def test_all_keys_of_a_row_arrive(tmp_path: Path):
    text = """\
providers:
  p:
    dialect: openai
    base_url: https://h.example:8443/v1/
    api_key: env:K
    transport: aiohttp
    proxy: env:P
    region: eu-west-3
    profile: work
    quirks: {stream_usage: false, output_limit_field: max_completion_tokens}
    models:
      m:
        serves: n
        price:
          {input: 1, output: 2, cache_read: 0.1, cache_write: 1.25, request: 0.005, image: 0.01,
           overrides: [{min_prompt_tokens: 128000, utc_start: 16:30, utc_end: 00:30, from: 2026-01-01, until: 2026-12-31, input: 3}]}
        capabilities: [tools, vision]
        state: unverified
        ends_on: 2027-03-30
        source: s
        as_of: 2026-10
        claims: [{field: price.input, value: 1.5, source: t, as_of: 2025}]
        description: d
"""  # fmt: skip
    catalogue = read(tmp_path, text, {"K": KEY, "P": "http://u:p@proxy:3128"}, today=date(2026, 11, 1))
    entry, endpoint = catalogue.providers["p"], catalogue.endpoints["p/m"]
    assert (entry.base_url, entry.transport, entry.region, entry.profile) == (
        "https://h.example:8443/v1",
        "aiohttp",
        "eu-west-3",
        "work",
    )
    assert entry.proxy.reveal() == "http://u:p@proxy:3128"
    assert entry.variables == ("K", "P")
    assert endpoint.quirks == Quirks(stream_usage=False, output_limit_field="max_completion_tokens")
    assert endpoint.capabilities.tools
    assert endpoint.capabilities.vision
    assert endpoint.state == "unverified"
    assert endpoint.price == Price(1_000_000, 2_000_000, 100_000, 1_250_000, 5 * 10**9, 10**10)
    (override,) = catalogue.price_overrides["p/m"]
    assert override.price == Price(input_in_pusd=3_000_000)
    assert (override.min_prompt_tokens, override.utc_start, override.from_day) == (128000, "16:30", date(2026, 1, 1))
    assert endpoint.details["claims"] == [{"field": "price.input", "value": "1.5", "source": "t", "as_of": "2025"}]
    assert endpoint.details["ends_on"] == "2027-03-30"


@pytest.mark.parametrize(("today", "state"), [(date(2027, 3, 30), "live"), (date(2027, 3, 31), "retired")])
def test_a_model_past_its_end_is_retired(tmp_path: Path, today: date, state: str):
    text = "providers: {a: {dialect: openai, base_url: http://h, models: {m: {ends_on: 2027-03-30}}}}\n"
    catalogue = read(tmp_path, text, today=today)
    assert catalogue.endpoints["a/m"].state == state
    assert catalogue.is_on(catalogue.endpoints["a/m"]) == (state == "live")


def test_a_provider_is_off_until_every_secret_it_names_resolves(tmp_path: Path):
    text = "providers: {a: {dialect: openai, base_url: http://h, api_key: env:K, proxy: env:P}}\n"
    entry = read(tmp_path, text, {"K": KEY}).providers["a"]
    assert not entry.on
    assert entry.off_reason == "P is not set"
    assert "export P" in entry.fix


def test_a_server_without_a_key_is_on_and_one_with_an_unreadable_key_file_is_off(tmp_path: Path):
    text = (
        "providers:\n  a: {dialect: openai, base_url: http://h}\n"
        f"  b: {{dialect: openai, base_url: http://h, api_key: 'file:{tmp_path}/none'}}\n"
    )
    catalogue = read(tmp_path, text)
    assert catalogue.providers["a"].on
    assert "cannot be read" in catalogue.providers["b"].off_reason
    assert catalogue.watched[:-1] == (tmp_path / "none",)


def test_a_key_over_plain_http_to_another_place_is_warned_of(tmp_path: Path):
    text = "providers: {a: {dialect: openai, base_url: %s, api_key: env:K}}\n"
    assert read(tmp_path, text % "http://api.example.com/v1", {"K": KEY}).warnings
    for fine in ("https://api.example.com/v1", "http://127.0.0.1:1", "http://10.0.0.7:8000/v1", "http://vllm:8000"):
        assert not read(tmp_path, text % fine, {"K": KEY}).warnings


def test_empty_values_count_as_not_written(tmp_path: Path):
    text = "gateway:\nproviders:\n  a:\n    dialect: openai\n    base_url: http://h\n    quirks:\n    models:\n      m:\nroutes:\n"
    assert set(read(tmp_path, text).routes) == {"m"}


GATEWAY = "providers: {}\ngateway: {port: 1000, drain_s: 5}\n"


def test_settings_come_from_flag_then_environment_then_file_then_default(tmp_path: Path):
    env = {"MIXGATE_PORT": "2000", "MIXGATE_DRAIN_S": "7"}
    settings = read(tmp_path, GATEWAY, env, overrides={"port": "3000"}).gateway
    assert (settings.host, settings.port, settings.drain_s) == ("127.0.0.1", 3000, 7)
    assert read(tmp_path, GATEWAY, env).gateway.port == 2000
    assert read(tmp_path, GATEWAY, {"MIXGATE_PORT": ""}).gateway.port == 1000


def test_every_setting_has_a_variable(tmp_path: Path):
    (tmp_path / "c.pem").touch()
    env = {
        "MIXGATE_HOST": "0.0.0.0",
        "MIXGATE_PORT": "0",
        "MIXGATE_CLIENT_KEYS": "env:A, env:B",
        "MIXGATE_TRUSTED_PROXIES": "10.0.0.1,10.1.0.0/16",
        "MIXGATE_HOSTS": "gate.example",
        "MIXGATE_DRAIN_S": "1",
        "MIXGATE_IN_FLIGHT_MAX": "20",
        "MIXGATE_IN_FLIGHT_PER_KEY_MAX": "2",
        "MIXGATE_TLS_CERT": f"{tmp_path}/c.pem",
        "MIXGATE_TLS_KEY": f"{tmp_path}/c.pem",
        "A": "one",
        "B": "two",
    }
    settings = read(tmp_path, GATEWAY, env).gateway
    assert (settings.host, settings.port, settings.drain_s, settings.hosts) == ("0.0.0.0", 0, 1, ("gate.example",))
    assert [key.reveal() for key in settings.client_keys] == ["one", "two"]
    assert settings.trusted_proxies == ("10.0.0.1", "10.1.0.0/16")
    assert settings.tls.cert == tmp_path / "c.pem"
    assert (settings.in_flight_max, settings.in_flight_per_key_max) == (20, 2)


@pytest.mark.parametrize(
    ("env", "flags", "where", "message"),
    [
        ({"MIXGATE_PORT": "http"}, {}, "MIXGATE_PORT", "not a whole number"),
        ({"MIXGATE_PORT": "99999"}, {}, "MIXGATE_PORT", "99999"),
        ({}, {"port": "-1"}, "--port", "-1"),
        ({}, {"host": "0.0.0.0"}, "--host", "no client keys"),
        ({"MIXGATE_HOST": "a b"}, {}, "MIXGATE_HOST", "not a host"),
        ({"MIXGATE_CLIENT_KEYS": "sk-abcdefgh12345678"}, {}, "MIXGATE_CLIENT_KEYS", "a key is pasted in"),
        ({"MIXGATE_CLIENT_KEYS": "env:NOPE"}, {}, "MIXGATE_CLIENT_KEYS", "NOPE is not set"),
        ({"MIXGATE_TLS_CERT": "/a.pem"}, {}, "MIXGATE_TLS_CERT", 'needs "key"'),
        (
            {"MIXGATE_TLS_CERT": "/no/a.pem", "MIXGATE_TLS_KEY": "/no/b.pem"},
            {},
            "MIXGATE_TLS_CERT",
            "no file",
        ),
    ],
)
def test_a_wrong_setting_from_outside_is_blamed_on_its_origin(
    tmp_path: Path, env: dict[str, str], flags: dict[str, str], where: str, message: str
):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, GATEWAY, env, overrides=flags)
    assert any(problem.where == where and message in problem.message for problem in caught.value.problems)
    assert "abcdefgh12345678" not in str(caught.value)


def test_a_variable_that_nothing_reads_is_warned_of_when_it_looks_like_one(tmp_path: Path):
    (warning,) = read(tmp_path, GATEWAY, {"MIXGATE_PROT": "1", "MIXGATE_UNRELATED_THING": "1"}).warnings
    assert warning.where == "MIXGATE_PROT"
    assert "MIXGATE_PORT" in warning.message


def test_the_configuration_is_looked_for_in_order(tmp_path: Path):
    env = {"MIXGATE_CONFIG": "/from/env.yaml"}
    assert find_config("/from/flag.yaml", env, tmp_path) == Path("/from/flag.yaml")
    assert find_config(None, env, tmp_path) == Path("/from/env.yaml")
    assert find_config(None, {}, tmp_path) == PACKAGED_CONFIG
    (tmp_path / "providers.yaml").touch()
    assert find_config(None, {}, tmp_path) == tmp_path / "providers.yaml"


def test_the_state_folder_is_where_it_was_told_or_where_the_platform_has_it():
    assert home_folder({"MIXGATE_HOME": "/srv/mixgate"}) == Path("/srv/mixgate")
    assert home_folder({}).name == "mixgate"
    assert model_file("a.gguf", Path("/srv")) == Path("/srv/models/a.gguf")
    assert model_file("/x/a.gguf", Path("/srv")) == Path("/x/a.gguf")


def test_a_client_key_does_not_administer(tmp_path):
    gateway = "providers: {}\ngateway: {client_keys: [env:KEY], admin_token: env:ADMIN}\n"
    assert read(tmp_path, gateway, {"KEY": "one", "ADMIN": "two"}).gateway.admin_token.reveal() == "two"
    with pytest.raises(ConfigError, match="must not administer"):
        read(tmp_path, gateway, {"KEY": "one", "ADMIN": "one"})


def test_issued_keys_count_as_client_keys(tmp_path):
    path = tmp_path / "providers.yaml"
    path.write_text("gateway: {host: 0.0.0.0}\nproviders: {local: {dialect: local, models: {}}}\n")
    env = {"MIXGATE_HOME": str(tmp_path)}
    with pytest.raises(ConfigError, match="mixgate keys create"):
        load(path, env)
    assert load(path, env, has_issued_keys=True).gateway.host == "0.0.0.0"
