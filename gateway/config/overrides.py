"""Settings of the `gateway` section that come from MIXGATE_<KEY> or a flag instead: flag over environment over file."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from pydantic import ValidationError

from gateway.config.complaints import near, translate
from gateway.config.locations import CONFIG_VARIABLE, HOME_VARIABLE
from gateway.config.schema import GatewaySection
from gateway.config.secrets import is_reference
from gateway.config.section import Section
from gateway.config.source import resolve_scalar
from gateway.errors import ConfigProblem

PREFIX = "MIXGATE_"
NESTED = {"tls": ("cert", "key"), "log": ("format", "level")}
"""Keys of sections in the section that may come from outside the file too, as in MIXGATE_TLS_CERT."""
_NESTED_KEYS = tuple(f"{outer}_{inner}" for outer, names in NESTED.items() for inner in names)
_SECRET_KEYS = ("client_keys", "admin_token", "metrics_token", "viewer_token")
LIST_KEYS = ("client_keys", "trusted_proxies", "hosts")
_FILE_ALONE = ("telemetry", "postgres", "redis", "alerts")
SETTING_KEYS = (*(key for key in GatewaySection.model_fields if key not in (*NESTED, *_FILE_ALONE)), *_NESTED_KEYS)
"""Every setting, as `MIXGATE_<KEY>` in the environment and `--<key>` with dashes on the command line."""
OTHER_VARIABLES = (CONFIG_VARIABLE, HOME_VARIABLE, "MIXGATE_CLIENT_KEY", "MIXGATE_TEST_FULL")


class Override(Struct, frozen=True):
    """One setting from outside the file."""

    key: str
    value: Any
    origin: str
    """The variable or flag, for a complaint."""


def gather(env: Mapping[str, str], flags: Mapping[str, Any]) -> dict[str, Override]:
    """Every override by key. An empty variable counts as one that is not set."""
    found: dict[str, Override] = {}
    for key in SETTING_KEYS:
        variable = PREFIX + key.upper()
        if flags.get(key) is not None:
            found[key] = Override(key, _read(key, flags[key]), "--" + key.replace("_", "-"))
        elif env.get(variable):
            found[key] = Override(key, _read(key, env[variable]), variable)
    return found


def apply(section: GatewaySection, overrides: Mapping[str, Override]) -> tuple[GatewaySection, list[ConfigProblem]]:
    """The section with `overrides` in the place of what the file says, and what is wrong with them."""
    written, problems = section.written(), list[ConfigProblem]()
    candidates = [item for item in overrides.values() if item.key not in _NESTED_KEYS]
    for outer, names in NESTED.items():
        given = {name: overrides[f"{outer}_{name}"] for name in names if f"{outer}_{name}" in overrides}
        if given:
            inner: Section | None = getattr(section, outer)
            merged = {**({} if inner is None else inner.written()), **{name: one.value for name, one in given.items()}}
            candidates.append(Override(outer, merged, ", ".join(one.origin for one in given.values())))
    for item in candidates:
        try:
            judged = GatewaySection.model_validate({item.key: item.value})
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                message, fix = translate(detail["loc"], detail)
                if item.key in _SECRET_KEYS and item.origin.startswith(PREFIX):
                    fix += f"; {item.origin} is the setting itself, so what holds the key needs another name"
                problems.append(ConfigProblem(item.origin, message, fix))
        else:
            written[item.key] = getattr(judged, item.key)
    return section.model_copy(update=written), problems


def misspelt(env: Mapping[str, str]) -> list[ConfigProblem]:
    """Warnings about MIXGATE_ variables that nothing reads but that look like one that is."""
    # Compared without the prefix that they all share, or everything would look like everything.
    known = [key.upper() for key in SETTING_KEYS] + [name.removeprefix(PREFIX) for name in OTHER_VARIABLES]
    problems: list[ConfigProblem] = []
    for variable in sorted(env):
        name = variable.removeprefix(PREFIX)
        meant = near(name, known) if variable.startswith(PREFIX) and name not in known else ()
        if meant:
            message = f"nothing reads this variable; did you mean {PREFIX}{meant[0]}?"
            problems.append(ConfigProblem(variable, message, "correct its name, or unset it"))
    return problems


def _read(key: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if key in LIST_KEYS:
        return [part.strip() for part in value.split(",") if part.strip()]
    return value if is_reference(value) or key == "host" else resolve_scalar(value)
