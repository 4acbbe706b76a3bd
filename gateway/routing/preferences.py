"""OpenRouter's request language: what a client says of routing beside the model's name.

`provider`, `models`, the suffixes of a name, `session_id` and `user`; judged here once, as numbers and choices from
here on. Contract: https://openrouter.ai/docs/features/provider-routing
"""

import math
import re
from collections.abc import Callable, Mapping
from decimal import ROUND_FLOOR, Decimal
from typing import Any, Final, NoReturn, cast, get_args

from gateway.config.catalogue import NAME_SUFFIXES
from gateway.config.complaints import did_you_mean
from gateway.config.schema import Quantization
from gateway.errors import InvalidRequestError, ModelNotFoundError
from gateway.routing.ask import NO_PREFERENCES, Cutoffs, Preferences, PriceLimit, Sort
from providers.json_values import elements, members
from providers.messages import ChatRequest
from providers.parameters import PARAMETERS

SLUGS_MAX: Final = 64
"""Names in one list of `provider`."""
SLUG_MAX_CHARS: Final = 256
SESSION_MAX_CHARS: Final = 256
USER_MAX_CHARS: Final = 256
PRICE_LIMIT_MAX_IN_PUSD: Final = 10**18
"""A million USD: whoever allows more allows everything."""

QUANTIZATIONS: Final = get_args(Quantization)
SORTS: Final = get_args(Sort)
_PARTITIONS: Final = ("model", "none")
_FIGURES: Final = ("p50", "p75", "p90", "p99")
_SUFFIX_SORTS: Final[Mapping[str, Sort]] = {":nitro": "throughput", ":floor": "price", ":exacto": "exacto"}
_NUMBER: Final = re.compile(r"[0-9]{1,32}(\.[0-9]{1,32})?([eE][-+]?[0-9]{1,3})?")
_PUSD_PER_USD: Final = 10**12
_TOKENS_PER_MTOK: Final = 10**6
_PRICES: Final = {
    "prompt": ("input_in_pusd", _TOKENS_PER_MTOK),
    "completion": ("output_in_pusd", _TOKENS_PER_MTOK),
    "request": ("request_in_pusd", 1),
    "image": ("image_in_pusd", 1),
    "audio": (None, 1),  # OpenRouter has it; no Endpoint here has a price for audio that it could limit
}


def split_suffix(name: str) -> tuple[str, str | None]:
    """A requested name without its suffix, and the suffix (`:nitro` and the like), if it has one."""
    for suffix in NAME_SUFFIXES:
        if name.endswith(suffix):
            return name.removesuffix(suffix), suffix
    return name, None


def requested_names(request: ChatRequest) -> tuple[str, ...]:
    """The models that are asked for, in order and each once: `model`, then `models`.

    Raises:
        ModelNotFoundError: None is named.
        InvalidRequestError: One of `models` is empty.
    """
    if not request.models:
        if not request.model:
            message = "no model was named: set `model` to one of the names that GET /v1/models lists"
            raise ModelNotFoundError(message, param="model")
        return (request.model,)
    for position, name in enumerate(request.models):
        if not name:
            _refuse(f"models[{position}]", "it is empty", "name a model, or leave the entry out")
    names = (request.model, *request.models) if request.model else request.models
    return tuple(dict.fromkeys(names))


def read_preferences(request: ChatRequest, name_suffix: str | None) -> Preferences:
    """What the client wants of routing. What `provider` says wins over a suffix; members unknown here are let be.

    Args:
        request: Its `provider` is read.
        name_suffix: Of the name by which the Route was found, as `split_suffix` gives it.

    Raises:
        InvalidRequestError: A value makes no sense; `param` names the member, as in `provider.sort`.
    """
    wishes = request.provider
    if not wishes and name_suffix is None:
        return NO_PREFERENCES
    wishes = wishes or {}
    sort, across_models = _sort(wishes.get("sort"))
    return Preferences(
        order=_slugs(wishes, "order"),
        allow_fallbacks=_flag(wishes, "allow_fallbacks", default=True),
        require_parameters=_flag(wishes, "require_parameters"),
        data_collection="deny" if _choice(wishes, "data_collection", ("allow", "deny")) == "deny" else "allow",
        zdr=_flag(wishes, "zdr"),
        distillable=_flag(wishes, "enforce_distillable_text"),
        only=_slugs(wishes, "only"),
        ignore=_slugs(wishes, "ignore"),
        quantizations=_quantizations(wishes),
        sort=sort or _SUFFIX_SORTS.get(name_suffix or ""),
        across_models=across_models,
        free_only=name_suffix == ":free",
        min_throughput=_cutoffs(wishes, "preferred_min_throughput"),
        max_latency=_cutoffs(wishes, "preferred_max_latency"),
        max_price=_price_limit(wishes.get("max_price")),
    )


def read_session(request: ChatRequest, header: str | None) -> str | None:
    """The session that the request belongs to: its `session_id`, else that of the header `x-session-id`.

    Raises:
        InvalidRequestError: The header is too long. (The body's was judged when it was read.)
    """
    if request.session_id:
        return request.session_id
    if header and len(header) > SESSION_MAX_CHARS:
        _refuse("x-session-id", f"it has {len(header)} characters", f"use at most {SESSION_MAX_CHARS}")
    return header or None


def check_user(request: ChatRequest) -> None:
    """Judge the end user's id.

    Raises:
        InvalidRequestError: It is too long.
    """
    if request.user is not None and len(request.user) > USER_MAX_CHARS:
        _refuse("user", f"it has {len(request.user)} characters", f"use at most {USER_MAX_CHARS}, such as a hash")


def parameters_of(request: ChatRequest) -> tuple[str, ...]:
    """The members that the request has and that an Endpoint may or may not honour, by the names of `PARAMETERS`.

    A value that says no more than its absence (`n: 1`, `logprobs: false`, no tools) is not one.
    """
    return tuple(name for name in PARAMETERS if _is_asked(request, name))


def _is_asked(request: ChatRequest, name: str) -> bool:
    asked = _ASKED.get(name)
    return getattr(request, name) is not None if asked is None else asked(request)


def _wants_schema(request: ChatRequest) -> bool:
    form = request.response_format
    return form is not None and (form.type == "json_schema" or form.schema is not None)


_ASKED: Final[Mapping[str, Callable[[ChatRequest], bool]]] = {
    "max_tokens": lambda request: request.output_limit_tokens is not None,
    "n": lambda request: (request.n or 1) > 1,
    "logprobs": lambda request: bool(request.logprobs),
    "response_format": lambda request: request.response_format is not None and request.response_format.type != "text",
    "structured_outputs": _wants_schema,
    "tools": lambda request: bool(request.tools or request.functions),
    "tool_choice": lambda request: request.tool_choice is not None or request.function_call is not None,
    "reasoning": lambda request: bool(request.reasoning) or request.reasoning_effort not in (None, "none"),
    "modalities": lambda request: request.modalities not in (None, ["text"]),
}
"""Of members whose presence alone asks nothing yet, or that are spelt in more than one way."""


def _sort(value: object) -> tuple[Sort | None, bool]:
    """What to sort by, and whether over all models."""
    if value is None:
        return None, False
    if isinstance(value, str):
        if value not in SORTS:
            _not_among("provider.sort", value, SORTS)
        return cast("Sort", value), False
    if not isinstance(value, dict):
        _refuse("provider.sort", "it is neither text nor an object", f"write one of {', '.join(SORTS)}")
    wishes = cast("dict[str, Any]", value)
    by = _choice(wishes, "by", SORTS, within="provider.sort")
    partition = _choice(wishes, "partition", _PARTITIONS, within="provider.sort")
    return cast("Sort | None", by), partition == "none"


def _quantizations(wishes: Mapping[str, Any]) -> tuple[str, ...]:
    names = _slugs(wishes, "quantizations")
    for position, name in enumerate(names):
        if name not in QUANTIZATIONS:
            _not_among(f"provider.quantizations[{position}]", name, QUANTIZATIONS)
    return names


def _slugs(wishes: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = wishes.get(name)
    if value is None:
        return ()
    where = f"provider.{name}"
    if not isinstance(value, list):
        _refuse(where, "it is not a list", "write a list of names, such as [a, b]")
    slugs = elements(cast("list[object]", value))
    if len(slugs) > SLUGS_MAX:
        _refuse(where, f"it has {len(slugs)} entries", f"name at most {SLUGS_MAX}")
    for position, slug in enumerate(slugs):
        if not isinstance(slug, str) or not 0 < len(slug) <= SLUG_MAX_CHARS:
            _refuse(f"{where}[{position}]", "it is not a name", f"write text of 1 to {SLUG_MAX_CHARS} characters")
    return tuple(dict.fromkeys(slugs))


def _flag(wishes: Mapping[str, Any], name: str, *, default: bool = False) -> bool:
    value = wishes.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        _refuse(f"provider.{name}", "it is neither true nor false", "write true or false, without quotes")
    return value


def _choice(wishes: Mapping[str, Any], name: str, choices: tuple[str, ...], *, within: str = "provider") -> str | None:
    value = wishes.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or value not in choices:
        _not_among(f"{within}.{name}", value, choices)
    return value


def _cutoffs(wishes: Mapping[str, Any], name: str) -> Cutoffs | None:
    value = wishes.get(name)
    if value is None:
        return None
    where = f"provider.{name}"
    if not isinstance(value, dict):
        return Cutoffs(p50=_figure(value, where))
    figures = cast("dict[str, Any]", value)
    _only_known(figures, _FIGURES, where)
    found = {key: _figure(figure, f"{where}.{key}") for key, figure in figures.items() if figure is not None}
    return Cutoffs(**found) if found else None


def _figure(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        _refuse(where, "it is not a number", "write a number, or an object with p50, p75, p90, p99")
    if value < 0 or not math.isfinite(value):
        _refuse(where, "it is negative or has no end", "write a number of 0 or more")
    return float(value)


def _price_limit(value: object) -> PriceLimit | None:
    if value is None:
        return None
    where = "provider.max_price"
    if not isinstance(value, dict):
        _refuse(where, "it is not an object", 'write {"prompt": 1, "completion": 2}, in USD per million tokens')
    prices = members(cast("dict[str, object]", value))
    # A limit under a name that nobody reads would cost whoever set it money.
    _only_known(prices, tuple(_PRICES), where)
    limits: dict[str, int] = {}
    for key, price in prices.items():
        field, per = _PRICES[key]
        if price is not None:
            limit = _in_pico_usd(price, per, f"{where}.{key}")
            if field is not None:
                limits[field] = limit
    return PriceLimit(**limits) if limits else None


def _in_pico_usd(value: object, per: int, where: str) -> int:
    """A limit in USD per `per` units as pico-USD for one, rounded down: prices are whole, so this excludes no more."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        amount = Decimal(value)
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        # The shortest text of a float is what the client wrote; its binary value is not.
        amount = Decimal(repr(value))
    else:
        _refuse(where, "it is not a price", "write a number of USD, such as 0.5")
    if amount < 0:
        _refuse(where, "it is negative", "write 0 for what costs nothing, or more")
    if amount > PRICE_LIMIT_MAX_IN_PUSD // _PUSD_PER_USD:
        return PRICE_LIMIT_MAX_IN_PUSD
    return int((amount * (_PUSD_PER_USD // per)).to_integral_value(rounding=ROUND_FLOOR))


def _only_known(found: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in found:
        if key not in known:
            what = f"nothing is called so here{did_you_mean(key[:SLUG_MAX_CHARS], known)}"
            _refuse(f"{where}.{key[:SLUG_MAX_CHARS]}", what, f"use {', '.join(known)}")


def _not_among(where: str, value: object, choices: tuple[str, ...]) -> NoReturn:
    said = f"{value[:SLUG_MAX_CHARS]!r} is not known{did_you_mean(value, choices)}" if isinstance(value, str) else ""
    _refuse(where, said or "it is not text", f"write one of {', '.join(choices)}")


def _refuse(where: str, what: str, fix: str) -> NoReturn:
    raise InvalidRequestError(f"{where}: {what}; {fix}", param=where)
