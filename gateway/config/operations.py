"""How the gateway is watched: what its log is like, and where traces go."""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from msgspec import Struct
from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from gateway.config.fields import BaseUrl, Reference, refuse
from gateway.config.secrets import Secret, resolve, show
from gateway.config.section import Section
from gateway.errors import ConfigProblem

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]
TELEMETRY_HEADERS_MAX: Final = 16
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")


def _share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)) or not 0 <= value <= 1:
        refuse(f"{show(value)} is not a share", "write a number from 0 to 1, such as 0.1")
    return float(value)


def _header_name(value: str) -> str:
    if not _HEADER_NAME.fullmatch(value):
        refuse(f"{show(value)} is not the name of a header", "use letters, digits and dashes")
    return value.lower()


Share = Annotated[float, BeforeValidator(_share), WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1})]
HeaderName = Annotated[str, AfterValidator(_header_name)]


class LogSection(Section):
    """What the log is like. It goes to standard error."""

    format: LogFormat = Field(default="text", description="Lines for people, or one JSON object per line")
    level: LogLevel = Field(default="info", description="The least that is said")
    requests: bool = Field(default=False, description="Whether every request leaves a line")


class TelemetrySection(Section):
    """Where traces and metrics go by OpenTelemetry's protocol."""

    otlp_endpoint: BaseUrl = Field(description="OTLP over http, up to and without /v1/traces")
    headers: Mapping[HeaderName, Reference] = Field(
        default={}, max_length=TELEMETRY_HEADERS_MAX, description="Headers of every export, each env:NAME or file:/path"
    )
    sample: Share = Field(default=0.1, description="Share of requests that are traced; metrics count all")


class LogSettings(Struct, frozen=True):
    """What the log is like."""

    format: LogFormat = "text"
    level: LogLevel = "info"
    requests: bool = False
    """Whether every request leaves a line."""


class Telemetry(Struct, frozen=True):
    """Where traces and metrics go."""

    otlp_endpoint: str
    """Without a trailing slash and without `/v1/traces`."""
    headers: Mapping[str, Secret] = {}
    sample: float = 0.1
    """Share of requests that are traced, 0 to 1."""


def settle_log(section: LogSection | None) -> LogSettings:
    """The settings that a section comes to."""
    return LogSettings() if section is None else LogSettings(section.format, section.level, section.requests)


def settle_telemetry(
    section: TelemetrySection | None, env: Mapping[str, str], complain: Callable[..., ConfigProblem]
) -> tuple[Telemetry | None, list[Path], list[ConfigProblem]]:
    """The settings with their secrets, the files these came from, and those that do not resolve."""
    if section is None:
        return None, [], []
    headers: dict[str, Secret] = {}
    files: list[Path] = []
    problems: list[ConfigProblem] = []
    for name, reference in section.headers.items():
        found = resolve(reference, env)
        files += [] if found.file is None else [found.file]
        if found.secret is None:
            message = f"gateway.telemetry.headers.{name}: {reference} does not resolve: {found.reason}"
            problems.append(complain("telemetry", "headers", name, message=message, fix=found.fix))
        else:
            headers[name] = found.secret
    return Telemetry(section.otlp_endpoint, headers, section.sample), files, problems
