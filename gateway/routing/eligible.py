"""Whether an Endpoint may serve a request: one exclusion with a stable code and its numbers, or none."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Final, TypeAlias

from msgspec import Struct

from gateway.routing.ask import NO_PREFERENCES, Ask, Cutoffs, Preferences, PriceLimit
from gateway.routing.costs import cost_at, price_now
from gateway.routing.exclusion import Exclusion
from gateway.routing.table import ABILITIES, ASSURANCES, UNBOUNDED, Row, Table
from providers.base import Price
from providers.pricing import PICO_PER_NANO

OUTPUT_MIN_TOKENS: Final = 16
"""Room that an answer needs where the client asked for no length."""
OUTPUT_UNKNOWN_TOKENS: Final = 4096
"""The longest answer, for budgets, where neither the client nor the Endpoint has a limit."""
EMULATED: Final = frozenset({"tools", "json_object", "json_schema"})
"""Capabilities that any model can be given in words (providers/emulation.py)."""
UNKNOWN_QUANTIZATION: Final = "unknown"
UNKNOWN_PRICE: Final = Price()
PER_TOKEN: Final = frozenset({"input_in_pusd", "output_in_pusd"})
"""Prices that everybody has, so that silence is not zero."""
PRICE_WORDS: Final = {
    "input_in_pusd": "price for input",
    "output_in_pusd": "price for output",
    "request_in_pusd": "price for a request",
    "image_in_pusd": "price for an image",
}
_UNASSURED: Final = {
    "data_collection": "it is not known to leave what it is sent unused",
    "zdr": "it is not known to keep nothing of what it is sent",
    "distillable": "its text is not known to be free to train on",
}
_NO_LOSSES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({})
_EMULATED_BITS: Final = sum(ABILITIES[name] for name in EMULATED)


Limits: TypeAlias = tuple[tuple[str, float], ...]
"""Field names and what they are held against; what was not wished for is not among them."""


class Demand(Struct, frozen=True):
    """An Ask, ready to be compared with each Row."""

    ask: Ask
    preferences: Preferences
    now_utc: datetime | None
    tokens: int
    """Prompt and answer."""
    output_tokens: int
    """As asked; 0: no length was asked for."""
    expected_tokens: int
    """Of the answer."""
    needed: int
    """Bits of `ABILITIES`."""
    hard: int
    """Those of them that cannot be emulated here."""
    special: bool
    """There is more to look at than sizes and abilities."""
    permitted: frozenset[str] | None
    order: tuple[str, ...]
    only: tuple[str, ...]
    ignore: tuple[str, ...]
    slugs: frozenset[str]
    """What we know by name; whatever else a preference names, a router further on may know."""
    parameters: frozenset[str]
    losses: Mapping[str, tuple[str, ...]]
    """By Endpoint id, what of the request would not arrive there as asked."""
    assured: int
    """Bits of `ASSURANCES` that the client insists on."""
    paying: bool
    """There is a limit to what it may cost."""
    price_limits: Limits
    """By the field of a Price."""
    floors: Limits
    """Wishes for throughput, by the field of Quantiles."""
    ceilings: Limits
    """Wishes for latency, likewise."""


def demand_of(table: Table, ask: Ask, now_utc: datetime | None) -> Demand:
    """What is asked, compared once with what stays the same from Row to Row."""
    preferences = ask.preferences
    plain = preferences is NO_PREFERENCES or preferences == NO_PREFERENCES
    limit, expected, needed = ask.output_tokens, ask.expected_output_tokens, 0
    for name in ask.needed:
        needed |= ABILITIES[name]
    return Demand(
        ask,
        preferences,
        now_utc,
        ask.prompt_tokens + (OUTPUT_MIN_TOKENS if limit is None else limit),
        limit or 0,
        expected if limit is None or expected < limit else limit,
        needed,
        needed & ~_EMULATED_BITS if table.emulate else needed,
        not (plain and ask.permitted is None and ask.budget_in_nusd is None),
        None if ask.permitted is None else frozenset(ask.permitted),
        _lower(preferences.order),
        _lower(preferences.only),
        _lower(preferences.ignore),
        table.slugs,
        frozenset(ask.parameters),
        dict(ask.losses) if ask.losses else _NO_LOSSES,
        0 if plain else _assurances(preferences),
        ask.budget_in_nusd is not None or preferences.free_only or preferences.max_price is not None,
        _set(preferences.max_price),
        _set(preferences.min_throughput),
        _set(preferences.max_latency),
    )


def _set(wishes: PriceLimit | Cutoffs | None) -> Limits:
    if wishes is None:
        return ()
    fields = wishes.__struct_fields__
    return tuple([(name, value) for name in fields if (value := getattr(wishes, name)) is not None])


def _lower(slugs: tuple[str, ...]) -> tuple[str, ...]:
    return tuple([slug.lower() for slug in slugs]) if slugs else slugs


def _assurances(preferences: Preferences) -> int:
    return (
        ASSURANCES["data_collection"] * (preferences.data_collection == "deny")
        + ASSURANCES["zdr"] * preferences.zdr
        + ASSURANCES["distillable"] * preferences.distillable
    )


def judge(row: Row, demand: Demand) -> Exclusion | None:
    """Why it may not serve the request, if it may not. What the operator decides comes first, money last."""
    exclusion = _by_lists(row, demand) if demand.special else None
    exclusion = exclusion or _by_abilities(row, demand) or _by_size(row, demand)
    if exclusion is None and demand.special:
        exclusion = _by_wishes(row, demand) or (_by_money(row, demand) if demand.paying else None)
    return exclusion


def judge_wishes(row: Row, demand: Demand) -> Exclusion | None:
    """As `judge`, for a Row that is large and able enough."""
    return _by_lists(row, demand) or _by_wishes(row, demand) or (_by_money(row, demand) if demand.paying else None)


def place_in(slugs: Sequence[str], row: Row, known: frozenset[str]) -> int:
    """The position of the first slug that means this Row; their number if none does."""
    for position, slug in enumerate(slugs):
        if slug in row.slugs or (row.relays and slug not in known):
            return position
    return len(slugs)


def _by_lists(row: Row, demand: Demand) -> Exclusion | None:
    preferences = demand.preferences
    if demand.permitted is not None and demand.permitted.isdisjoint(row.names):
        return _no(row, "not_permitted", "this client key may not use it")
    if not preferences.allow_fallbacks:
        if row.fallback:
            return _no(row, "no_fallbacks", "it is a fallback, and the request allows none")
        if demand.order and place_in(demand.order, row, demand.slugs) == len(demand.order):
            return _no(row, "no_fallbacks", "the request's `provider.order` does not name it, and allows no others")
    if demand.only and place_in(demand.only, row, demand.slugs) == len(demand.only):
        return _not_among(row, demand.only)
    if not row.slugs.isdisjoint(demand.ignore):
        return _no(row, "ignored", "the request's `provider.ignore` names it")
    return None


def _not_among(row: Row, only: Sequence[str]) -> Exclusion:
    region, elsewhere = row.endpoint.region, row.provider.lower() + "/"
    if region is not None and any(slug.startswith(elsewhere) for slug in only):
        return _no(row, "region", f"it is in {region}, and the request's `provider.only` names other places")
    return _no(row, "only", "the request's `provider.only` does not name it")


def _by_abilities(row: Row, demand: Demand) -> Exclusion | None:
    lacking = demand.hard & ~row.abilities
    if not lacking:
        return None
    name = next(name for name in demand.ask.needed if ABILITIES[name] & lacking)
    return _no(row, f"no_{name}", f"it is not known to do {name}")


def _by_size(row: Row, demand: Demand) -> Exclusion | None:
    if demand.tokens > row.context_tokens:
        prompt, limit = demand.ask.prompt_tokens, row.context_tokens
        answer = f"{demand.output_tokens} for the answer" if demand.output_tokens else "room for an answer"
        reason = f"it takes {limit} tokens; the prompt has about {prompt}, and {answer} comes on top"
        return _no(row, "context", reason, demand.tokens, limit)
    if demand.output_tokens > row.output_max_tokens:
        reason = f"it answers with {row.output_max_tokens} tokens at most, {demand.output_tokens} were asked for"
        return _no(row, "output_limit", reason, demand.output_tokens, row.output_max_tokens)
    return None


def _by_wishes(row: Row, demand: Demand) -> Exclusion | None:
    """What a client insists on. What nobody knows of an Endpoint does not satisfy it, parameters apart."""
    wish, endpoint = demand.preferences, row.endpoint
    if wish.require_parameters and endpoint.parameters is not None and not demand.parameters <= endpoint.parameters:
        lost = [name for name in demand.ask.parameters if name not in endpoint.parameters]
        return _no(row, "parameters", f"it does not take {', '.join(lost[:8])}")
    if wish.require_parameters and row.id in demand.losses:
        return _no(row, "parameters", f"it does not take {', '.join(demand.losses[row.id])} as asked")
    if wish.quantizations and not (row.relays and endpoint.quantization is None):
        stored = endpoint.quantization or UNKNOWN_QUANTIZATION
        if stored not in wish.quantizations:
            return _no(row, "quantization", f"its weights are {stored}, the request takes other ones only")
    missing = demand.assured & ~row.assured
    if missing:
        code = next(name for name, bit in ASSURANCES.items() if bit & missing)
        return _no(row, code, _UNASSURED[code])
    return None


def _by_money(row: Row, demand: Demand) -> Exclusion | None:
    budget, tariff = demand.ask.budget_in_nusd, row.tariff
    price = tariff.price if tariff.plain else price_now(tariff, demand.ask.prompt_tokens, demand.now_utc)
    if demand.preferences.free_only and not _is_free(price):
        return _no(row, "not_free", "it is not known to be free of charge")
    for field, limit in demand.price_limits:
        charged = getattr(price or UNKNOWN_PRICE, field)
        if charged is None and field in PER_TOKEN:
            return _no(row, "max_price", f"nobody knows its {PRICE_WORDS[field]}", int(limit))
        if charged is not None and charged > limit:
            return _no(row, "max_price", f"its {PRICE_WORDS[field]} is too high", int(limit), charged)
    return None if budget is None else _by_budget(row, demand, price, budget)


def _is_free(price: Price | None) -> bool:
    if price is None or price.input_in_pusd is None or price.output_in_pusd is None:
        return False
    return not (price.input_in_pusd or price.output_in_pusd or price.request_in_pusd or price.image_in_pusd)


def _by_budget(row: Row, demand: Demand, price: Price | None, budget_in_nusd: int) -> Exclusion | None:
    ask = demand.ask
    # The longest answer that it could give. Far above every size that is known, none is known.
    longest = min(demand.output_tokens or UNBOUNDED, row.output_max_tokens, row.context_tokens - ask.prompt_tokens)
    if longest > UNBOUNDED // 2:
        longest = max(demand.expected_tokens, OUTPUT_UNKNOWN_TOKENS)
    tariff = row.tariff
    if tariff.plain:
        per_token = ask.prompt_tokens * tariff.input_in_pusd + longest * tariff.output_in_pusd
        cost: int | None = per_token + tariff.request_in_pusd + ask.images * tariff.image_in_pusd
    else:
        cost = cost_at(price, prompt_tokens=ask.prompt_tokens, output_tokens=longest, images=ask.images)
    if cost is None:
        return _no(row, "budget", "nobody knows its price, so it cannot be kept within a budget", None, budget_in_nusd)
    if cost > budget_in_nusd * PICO_PER_NANO:
        # Rounded up, as what is left of a budget is never overdrawn by a fraction.
        wanted = -(-cost // PICO_PER_NANO)
        return _no(row, "budget", "it could cost more than is left to spend", wanted, budget_in_nusd)
    return None


def _no(row: Row, code: str, reason: str, wanted: int | None = None, limit: int | None = None) -> Exclusion:
    return Exclusion(row.id, code, reason, wanted, limit)
