"""How an issued key pays for one request."""

import json
from datetime import UTC, datetime

import pytest

from gateway.config.catalogue import Catalogue
from gateway.config.load import load
from gateway.errors import BudgetHeldError, QuotaError
from gateway.keys.key import KeyLimits, KeyRecord
from gateway.keys.purse import Purse
from gateway.keys.ring import Grants, KeyRing
from gateway.observation import Observation
from gateway.payment import most_prompt_tokens, offers_of, permitted_of, preferences_within, reserve
from gateway.routing.ask import Ask, Preferences, PriceLimit
from gateway.routing.candidate import Candidate
from gateway.routing.resolve import resolve
from gateway.routing.table import prepare
from gateway.server.openai_request import decode_chat
from gateway.sharing.memory import MemoryBudgets
from providers.tokens import estimate_request

NOON = 1_795_348_800.0
NOW_UTC = datetime(2026, 11, 22, 12, tzinfo=UTC)
CONFIG = """
providers:
  dear: {dialect: openai, base_url: "http://127.0.0.1:1/v1", models: {up: {serves: m, context_tokens: 4096,
    max_output_tokens: 1000, price: {input: 10, output: 30, cache_write: 12.5, request: 0.001}}}}
  cheap: {dialect: openai, base_url: "http://127.0.0.1:2/v1", models: {up: {serves: m, price: {input: 1, output: 2}}}}
  free: {dialect: openai, base_url: "http://127.0.0.1:3/v1", models: {up: {serves: m, price: {input: 0, output: 0}}}}
  secret: {dialect: openai, base_url: "http://127.0.0.1:4/v1", models: {up: {serves: m}}}
routes:
  m: {policy: ordered, endpoints: [cheap/up, dear/up, free/up, secret/up]}
"""


@pytest.fixture
def catalogue(tmp_path) -> Catalogue:
    path = tmp_path / "providers.yaml"
    path.write_text(CONFIG)
    return load(path, {"MIXGATE_HOME": str(tmp_path)})


@pytest.fixture
def table(catalogue):
    return prepare([resolve("m", catalogue)], catalogue, {})


def offers(catalogue, table, names=("cheap/up", "dear/up", "free/up", "secret/up"), choices=1, **asked):
    seats = [Candidate(catalogue.endpoints[name], Observation()) for name in names]
    ask = Ask(prompt_tokens=100, **asked)
    return offers_of(seats, table, ask, prompt_tokens=200, choices=choices, now_utc=NOW_UTC)


def purse_with(**limits):
    record = KeyRecord(id="k", name="k", digest=b"", created_us=1, updated_us=1, limits=KeyLimits(**limits))
    chain_of = KeyRing(b"p", [record]).chain
    return MemoryBudgets(chain_of, Purse(chain_of))


async def pay(purse, found, request="gen-1"):
    return await reserve(purse, "k", request, found, unix_s=NOON, now_s=0.0, total_s=600.0)


def test_an_offer_is_the_worst_case(catalogue, table):
    cheap, dear, free, secret = offers(catalogue, table, output_tokens=500)
    assert cheap.worst_in_nusd(cheap.output_tokens) == 200 * 1_000 + 500 * 2_000
    assert dear.worst_in_nusd(dear.output_tokens) == 200 * 12_500 + 500 * 30_000 + 1_000_000
    assert free.worst_in_nusd(free.output_tokens) == 0
    assert secret.fixed_in_pusd is None


def test_without_a_limit_an_offer_is_for_the_longest_answer_there_is(catalogue, table):
    cheap, dear, *_ = offers(catalogue, table)
    assert (cheap.output_tokens, dear.output_tokens) == (4096, 1000)
    assert offers(catalogue, table, choices=3)[0].output_in_pusd == 3 * cheap.output_in_pusd


def test_no_prompt_has_more_tokens_than_it_is_taken_for():
    for text in ("hello " * 400, "1234567890" * 50, "語" * 300, "\x00\x01" * 200, "🙂" * 100, '"\\' * 100):
        body = {"model": "m", "messages": [{"role": "user", "content": text}]}
        request = decode_chat(json.dumps(body).encode())
        assert most_prompt_tokens(request, 0) >= max(len(text.encode()), estimate_request(request) // 2)


async def test_what_the_first_can_be_afforded_for_is_what_is_sent(catalogue, table):
    purse = purse_with(ever_in_nusd=500_000)
    payment = await pay(purse, offers(catalogue, table, output_tokens=500))
    assert payment.grant.output_tokens_max == 150
    assert payment.grant.clamped
    assert payment.grant.endpoints == ("cheap/up", "free/up")
    assert payment.hold("gen-1/1", "cheap/up", NOON) is None
    assert isinstance(payment.hold("gen-1/2", "dear/up", NOON), QuotaError)
    assert isinstance(payment.hold("gen-1/3", "secret/up", NOON), QuotaError)
    assert payment.hold("gen-1/4", "free/up", NOON) is None
    payment.settle("gen-1/1", 499_000)
    payment.settle("gen-1/4", 0)
    payment.release()
    with pytest.raises(QuotaError, match=r"\$0\.000499 spent"):
        await pay(purse, offers(catalogue, table, names=("cheap/up", "secret/up")), "gen-2")


async def test_a_key_without_a_budget_may_ask_whom_nobody_knows_the_price_of(catalogue, table):
    payment = await pay(purse_with(), offers(catalogue, table))
    assert payment.hold("gen-1/1", "secret/up", NOON) is None
    assert payment.grant.output_tokens_max is None


async def test_money_that_is_only_reserved_is_asked_for_again(catalogue, table):
    purse = purse_with(day_in_nusd=1_300_000)
    await pay(purse, offers(catalogue, table, names=("cheap/up",), output_tokens=500))
    with pytest.raises(BudgetHeldError) as caught:
        await pay(purse, offers(catalogue, table, names=("cheap/up",), output_tokens=500), "gen-2")
    assert caught.value.retry_after_s == 1.0


@pytest.mark.parametrize(
    ("grants", "names"),
    [
        (Grants(), None),
        (Grants(models=("m",)), ("cheap/up", "dear/up", "free/up", "secret/up")),
        (Grants(models=("m",), providers=("dear", "other")), ("dear/up",)),
        (Grants(providers=("cheap",)), ("cheap/up",)),
        (Grants(models=("free/up",)), ("free/up",)),
        (Grants(models=("other",)), ()),
        (Grants(models=(), providers=()), ()),
    ],
)
def test_a_key_may_use_what_its_models_and_its_providers_both_allow(table, grants, names):
    found = permitted_of(grants, table)
    assert found == names or sorted(found or ()) == sorted(names or ())


def test_a_client_may_be_stricter_than_its_key_and_not_laxer():
    grants = Grants(input_max_in_pusd=5, output_max_in_pusd=7, data="nothing_kept")
    asked = Preferences(max_price=PriceLimit(input_in_pusd=3, output_in_pusd=9, image_in_pusd=1))
    found = preferences_within(asked, grants)
    assert found.max_price == PriceLimit(input_in_pusd=3, output_in_pusd=7, image_in_pusd=1)
    assert (found.data_collection, found.zdr) == ("deny", True)
    assert preferences_within(asked, Grants()) is asked
    only_data = preferences_within(Preferences(), Grants(data="no_training"))
    assert (only_data.data_collection, only_data.zdr, only_data.max_price) == ("deny", False, None)
