"""The kinds of value that providers.yaml holds: how each is judged, and what to do when it is wrong.

Every refusal carries its own remedy, so that a complaint can be acted on without the manual.
"""

import ipaddress
import re
from datetime import date
from decimal import Context, Decimal
from typing import Annotated, Any, NoReturn
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from gateway.config.dialects import DIALECTS
from gateway.config.secrets import is_reference, looks_like_key, show
from providers.parameters import PARAMETERS

PICO_PER_USD = 10**12
TOKENS_PER_MTOK = 10**6
PRICE_MAX_IN_USD = 10**6
MONEY_DIGITS = 64
CONTEXT_TOKENS_MAX = 100_000_000
SLOTS_MAX = 16
THREADS_MAX = 512
NAME_MAX_CHARS = 256
TEXT_MAX_CHARS = 2000
CACHE_TTL_MAX_S = 86_400
DRAIN_MAX_S = 3600
TIMEOUT_MIN_S = 0.05
TIMEOUT_MAX_S = 86_400
WEIGHT_MAX = 1_000_000
IN_FLIGHT_MAX = 100_000
WORKERS_MAX = 64

COMPLAINT = "mixgate"
"""The type of a pydantic error that carries its own words: `message` and `fix`."""

# The default context keeps 28 digits and rounds in silence; no number that the file may hold is that long here.
_EXACT = Context(prec=2 * MONEY_DIGITS)
_NAME = re.compile(r"[\x21-\x7e]{1,256}")
_PROVIDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_CLOCK = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")
_AS_OF = re.compile(r"[0-9]{4}(-(0[1-9]|1[0-2])(-[0-9]{2})?)?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def refuse(message: str, fix: str) -> NoReturn:
    """Raise the complaint that pydantic carries to where the line is known."""
    # Passed as context, or braces in a value would be taken for placeholders.
    raise PydanticCustomError(COMPLAINT, "{message}", {"message": message, "fix": fix})


def in_pico_usd(value: Any, per: int) -> int:
    """Turn a price in USD per `per` units into integer pico-USD per unit.

    Args:
        value: An int or a Decimal, as the text of the file said it.
        per: How many units the price is for.

    Raises:
        PydanticCustomError: Not a number, negative, absurd, or finer than a pico-USD.
    """
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        refuse(f"{show(value)} is not a price", "write a plain decimal number of USD, such as 2.00: no quotes, no $")
    amount = Decimal(value)
    if not amount.is_finite():
        refuse("a price is a finite number", "write a plain decimal number of USD, such as 2.00")
    if amount < 0:
        refuse(f"the price {amount} is negative", "write what the provider charges, 0 if nothing")
    # Judged before scaling: 1e999999999 is short to write and long to compute.
    if amount and (amount.adjusted() > 6 or amount > PRICE_MAX_IN_USD):
        refuse(f"the price {show(amount)} is over {PRICE_MAX_IN_USD} USD", "prices are in USD per million tokens")
    if amount and amount.adjusted() < -MONEY_DIGITS:
        refuse(f"the price {show(amount)} is finer than can be kept", "give at most 6 decimals")
    scaled = _EXACT.multiply(amount, PICO_PER_USD // per)
    if scaled != scaled.to_integral_value(context=_EXACT):
        decimals = len(str(PICO_PER_USD // per)) - 1
        refuse(f"the price {amount} is finer than can be kept", f"round it to at most {decimals} decimals")
    return int(scaled)


def _token_price(value: Any) -> int:
    return in_pico_usd(value, TOKENS_PER_MTOK)


def _unit_price(value: Any) -> int:
    return in_pico_usd(value, 1)


def _amount(value: Any, what: str, example: str, most: int) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        refuse(f"{show(value)} is not {what}", f"write a plain number, such as {example}: no quotes, no unit")
    # Judged before it becomes a float: 1e999999999 is short to write and long to compute.
    number = Decimal(value)
    if not number.is_finite() or number < 0 or (number and number.adjusted() > len(str(most))) or number > most:
        refuse(f"{show(value)} is not {what}", f"write a number from 0 to {most}, such as {example}")
    return float(number)


def _weight(value: Any) -> float:
    return _amount(value, "a weight", "2.5", WEIGHT_MAX)


def _seconds(value: Any) -> float:
    seconds = _amount(value, "a number of seconds", "10", TIMEOUT_MAX_S)
    if seconds < TIMEOUT_MIN_S:
        refuse(f"a limit of {show(value)} s would end everything", f"write at least {TIMEOUT_MIN_S} s")
    return seconds


def _parameter(value: str) -> str:
    if value not in PARAMETERS:
        known = ", ".join(PARAMETERS)
        refuse(f"there is no member {show(value)} of a request to support", f"write one of {known}")
    return value


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        refuse(f"{show(value)} is not a name", f"use 1 to {NAME_MAX_CHARS} printable ASCII characters, no spaces")
    return value


def _provider_name(value: str) -> str:
    if not _PROVIDER_NAME.fullmatch(value):
        refuse(
            f"{show(value)} cannot name a provider",
            "use letters, digits, dots, dashes and underscores: the name is the first part of `provider/model-id`",
        )
    return value


def _dialect(value: str) -> str:
    if value not in DIALECTS:
        known = ", ".join(DIALECTS)
        refuse(f"unknown dialect {show(value)}; known: {known}", f"use one of {known}; most servers speak openai")
    return value


def read_url(value: str, what: str, example: str) -> str:
    """An http(s) URL of host and path, without a trailing slash, a query or a password.

    Raises:
        PydanticCustomError: It is none.
    """
    if looks_like_key(value):
        refuse(
            f"a credential is written into {what}",
            "take it out of the URL: a provider key goes into `api_key: env:NAME`; revoke one that was shared",
        )
    if not re.match(r"https?://", value, re.IGNORECASE):
        begins = f"begin with http:// or https://, as in {example}"
        refuse(f"{what} {show(value)} is not an http(s) URL", begins)
    try:
        parts = urlsplit(value)
        sound = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        sound = False
        parts = urlsplit("")
    if not sound or re.search(r"[\s\x00-\x20\x7f-\U0010ffff\\]", value):
        refuse(f"{what} {show(value)} is not a sound URL", f"write scheme, host, port and path, as in {example}")
    if parts.query or parts.fragment or "@" in parts.netloc:
        refuse(f"{what} {show(value)} has more than host and path", f"leave the rest off, as in {example}")
    return value.rstrip("/")


def _base_url(value: str) -> str:
    url = read_url(value, "base_url", "http://127.0.0.1:8000/v1")
    for suffix in ("/chat/completions", "/models"):
        if url.endswith(suffix):
            refuse(f"base_url ends in {suffix}", f"leave that off: {show(url.removesuffix(suffix))}")
    return url


def _proxy(value: str) -> str:
    return value if is_reference(value) else read_url(value, "proxy", "http://proxy.example:3128")


def _reference(value: str) -> str:
    if is_reference(value):
        return value
    # The value is not quoted: whatever stands here may be a key that no pattern knows.
    if looks_like_key(value) or (len(value) >= 20 and re.fullmatch(r"[A-Za-z0-9+/=_.-]+", value)):
        refuse(
            "a key is pasted in here",
            "put it into the environment and write env:NAME, or into a file of mode 0600 and write file:/path; "
            "revoke the one that was written down",
        )
    if value.lower().startswith(("env:", "file:", "$")):
        refuse(
            "this reference to a key is malformed",
            "write env:NAME with an environment variable's name, or file:/absolute/path",
        )
    refuse("this is not a reference to a key", "write env:NAME or file:/absolute/path, never the key itself")


def _day(value: Any) -> date:
    if isinstance(value, str) and _DATE.fullmatch(value):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    refuse(f"{show(value)} is not a date", "write it as YYYY-MM-DD, for example 2026-10-19")


def _as_of(value: Any) -> str:
    text = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    if not _AS_OF.fullmatch(text):
        refuse(f"{show(value)} is not a date", "write YYYY-MM-DD, or YYYY-MM or YYYY where no more is known")
    if len(text) > len("YYYY-MM"):
        _day(text)
    return text


def _clock(value: str) -> str:
    if not _CLOCK.fullmatch(value):
        refuse(f"{show(value)} is not a time of day", "write it as HH:MM in UTC, for example 16:30")
    return value


def _host(value: str) -> str:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        if not _HOST_NAME.fullmatch(value):
            refuse(f"{show(value)} is not a host", "write an address or a host name without port: 127.0.0.1")
    return value


def _network(value: str) -> str:
    try:
        ipaddress.ip_network(value)
    except ValueError:
        refuse(f"{show(value)} is not an address or network", "write it as 10.0.0.1 or 10.0.0.0/8")
    return value


def _absolute(value: str) -> str:
    if not value.startswith("/"):
        refuse(f"{show(value)} is not an absolute path", "write the whole path, from / on")
    return value


def _gguf(value: str) -> str:
    if value == "bundled":
        return value
    if not value.endswith(".gguf") or ".." in value.split("/") or re.search(r"[\x00-\x1f]", value):
        refuse(
            f"{show(value)} is not a GGUF file",
            "write `bundled`, the name of a pulled file in the models folder, or an absolute path, ending in .gguf",
        )
    return value


def _price_schema(what: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "number", "minimum": 0, "maximum": PRICE_MAX_IN_USD, "description": what})


TokenPrice = Annotated[int, BeforeValidator(_token_price), _price_schema("USD per million tokens, at most 6 decimals")]
UnitPrice = Annotated[int, BeforeValidator(_unit_price), _price_schema("USD each, at most 12 decimals")]
Weight = Annotated[
    float, BeforeValidator(_weight), WithJsonSchema({"type": "number", "minimum": 0, "maximum": WEIGHT_MAX})
]
Seconds = Annotated[
    float,
    BeforeValidator(_seconds),
    WithJsonSchema({"type": "number", "minimum": TIMEOUT_MIN_S, "maximum": TIMEOUT_MAX_S}),
]
Parameter = Annotated[str, AfterValidator(_parameter), WithJsonSchema({"type": "string", "enum": [*PARAMETERS]})]
Name = Annotated[str, AfterValidator(_name)]
ProviderName = Annotated[str, AfterValidator(_provider_name)]
DialectName = Annotated[str, AfterValidator(_dialect), WithJsonSchema({"type": "string", "enum": [*DIALECTS]})]
BaseUrl = Annotated[str, AfterValidator(_base_url), WithJsonSchema({"type": "string", "pattern": "^https?://"})]
ProxyUrl = Annotated[
    str, AfterValidator(_proxy), WithJsonSchema({"type": "string", "pattern": "^(https?://|env:|file:/)"})
]
Reference = Annotated[
    str,
    AfterValidator(_reference),
    WithJsonSchema({"type": "string", "pattern": "^(env:[A-Za-z_][A-Za-z0-9_]*|file:/.+)$"}),
]
Day = Annotated[date, BeforeValidator(_day), WithJsonSchema({"type": "string", "format": "date"})]
AsOf = Annotated[
    str, BeforeValidator(_as_of), WithJsonSchema({"type": ["string", "integer"], "pattern": f"^{_AS_OF.pattern}$"})
]
ClockTime = Annotated[str, AfterValidator(_clock)]
Host = Annotated[str, AfterValidator(_host)]
Network = Annotated[str, AfterValidator(_network)]
AbsolutePath = Annotated[str, AfterValidator(_absolute)]
GgufFile = Annotated[str, AfterValidator(_gguf)]
TokenLimit = Annotated[int, Field(gt=0, le=CONTEXT_TOKENS_MAX)]
Text = Annotated[str, Field(max_length=TEXT_MAX_CHARS)]
