"""Where alerts go, and what is worth one."""

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args
from urllib.parse import urlsplit

from msgspec import Struct
from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from gateway.config.fields import Reference, UnitPrice, read_url, refuse
from gateway.config.secrets import Resolution, Secret, is_reference, resolve, show
from gateway.config.section import Section
from gateway.errors import ConfigProblem

AlertEvent = Literal["budget", "endpoint_down", "endpoint_back", "dear_fallback", "unusual_spend"]
EVENTS: Final[tuple[AlertEvent, ...]] = get_args(AlertEvent)
ALERT_TARGETS_MAX: Final = 16
BUDGET_STEPS_MAX: Final = 10
TIMES_MAX: Final = 1000
SECRET_MIN_CHARS: Final = 16
"""A shorter one could be guessed by whoever sees one signed alert."""
PICO_PER_NANO: Final = 1000


def _target_url(value: str) -> str:
    return value if is_reference(value) else read_url(value, "url", "https://alerts.example.com/mixgate")


def _times(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)) or not 1 < value <= TIMES_MAX:
        refuse(f"{show(value)} is not how many times", f"write a number above 1, at most {TIMES_MAX}, such as 3")
    return float(value)


TargetUrl = Annotated[
    str, AfterValidator(_target_url), WithJsonSchema({"type": "string", "pattern": "^(https?://|env:|file:/)"})
]
Times = Annotated[
    float, BeforeValidator(_times), WithJsonSchema({"type": "number", "exclusiveMinimum": 1, "maximum": TIMES_MAX})
]
Percent = Annotated[int, Field(ge=1, le=100)]


class AlertSection(Section):
    """Somebody who is told, by a signed POST."""

    url: TargetUrl = Field(description="https, or http on this machine; env:NAME or file:/path where it is a secret")
    secret: Reference = Field(description="What alerts are signed with: env:NAME or file:/path, 16 characters or more")
    events: list[AlertEvent] = Field(default=[*EVENTS], min_length=1, description="What is told; left out: everything")
    budget_percent: list[Percent] = Field(
        default=[50, 80, 100], max_length=BUDGET_STEPS_MAX, description="`budget`: at which shares of a key's budget"
    )
    dearer_times: Times = Field(
        default=3.0, description="`dear_fallback`: how many times what the first choice would have cost"
    )
    unusual_times: Times = Field(
        default=3.0, description="`unusual_spend`: how many times the median of this hour on the last 14 days"
    )
    unusual_least: UnitPrice = Field(
        default=10**12,
        json_schema_extra={"default": 1},  # as it is written, not as it is kept
        description="`unusual_spend`: USD in an hour that are never unusual",
    )


class AlertTarget(Struct, frozen=True):
    """Somebody who is told."""

    url: Secret
    """As a Secret, because it may have one in its path."""
    secret: Secret
    events: tuple[AlertEvent, ...] = EVENTS
    budget_percent: tuple[int, ...] = (50, 80, 100)
    dearer_times: float = 3.0
    unusual_times: float = 3.0
    unusual_least_in_nusd: int = 10**9

    @property
    def host(self) -> str:
        """Of its URL, fit to show."""
        return urlsplit(self.url.reveal()).hostname or ""


def settle_alerts(
    sections: Sequence[AlertSection], env: Mapping[str, str], complain: Callable[..., ConfigProblem]
) -> tuple[tuple[AlertTarget, ...], list[Path], list[ConfigProblem]]:
    """The targets with their secrets, the files these came from, and what is wrong with them.

    Args:
        sections: As the file has them.
        env: The environment.
        complain: Makes a problem of a place under `gateway`, a message and a fix.
    """
    targets: list[AlertTarget] = []
    files: list[Path] = []
    problems: list[ConfigProblem] = []
    for place, section in enumerate(sections):
        found = {"secret": resolve(section.secret, env)}
        # A URL that is written out is one that resolves to itself.
        found["url"] = (
            resolve(section.url, env) if is_reference(section.url) else Resolution(Secret(section.url, "url"))
        )
        files += [one.file for one in found.values() if one.file is not None]
        for name, one in found.items():
            if one.secret is None:
                message = f"gateway.alerts: the {name} does not resolve: {one.reason}"
                problems.append(complain("alerts", place, name, message=message, fix=one.fix))
        url, secret = found["url"].secret, found["secret"].secret
        if url is None or secret is None:
            continue
        wrong = _why_not(url.reveal(), secret.reveal())
        if wrong is not None:
            problems.append(complain("alerts", place, wrong[0], message=wrong[1], fix=wrong[2]))
            continue
        targets.append(_target(section, url, secret))
    return tuple(targets), files, problems


def _target(section: AlertSection, url: Secret, secret: Secret) -> AlertTarget:
    return AlertTarget(
        url,
        secret,
        tuple(dict.fromkeys(section.events)),
        tuple(sorted(set(section.budget_percent))),
        section.dearer_times,
        section.unusual_times,
        section.unusual_least // PICO_PER_NANO,
    )


def _why_not(url: str, secret: str) -> tuple[str, str, str] | None:
    """Which key is wrong, why, and what to do. The URL is not quoted: it may be a secret."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "url", "gateway.alerts: the url is no sound URL", "write https://host/path"
    if parts.scheme not in {"https", "http"} or not parts.hostname or port == 0 or "@" in parts.netloc:
        return "url", "gateway.alerts: the url is no sound http(s) URL", "write https://host/path, without a password"
    if parts.scheme == "http" and not is_loopback_name(parts.hostname):
        return "url", "gateway.alerts: alerts would travel over plain http", "use https://, or a host on this machine"
    if len(secret) < SECRET_MIN_CHARS:
        fix = "make one with `openssl rand -hex 32`"
        return "secret", f"gateway.alerts: the secret has fewer than {SECRET_MIN_CHARS} characters", fix
    return None


def is_loopback_name(host: str) -> bool:
    """Whether a host of a URL is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
