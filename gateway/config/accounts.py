"""Provider entries: whose key resolves and who is therefore on, and the settings of the gateway with keys resolved."""

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct, structs

from gateway.config.alerts import AlertTarget, settle_alerts
from gateway.config.aws import AWS_VARIABLES, REGION, look
from gateway.config.catalogue import GatewaySettings, ProviderEntry, Tls
from gateway.config.complaints import Located
from gateway.config.dialects import DIALECTS
from gateway.config.operations import Telemetry, settle_log, settle_telemetry
from gateway.config.overrides import Override
from gateway.config.schema import GatewaySection, ProviderSection
from gateway.config.secrets import Resolution, Secret, is_reference, resolve
from gateway.config.stores import PostgresSettings, RedisSettings, settle_postgres, settle_redis
from gateway.errors import ConfigProblem
from providers.base import UNKNOWN_DATA_POLICY, DataPolicy
from providers.litellm_library import why_missing


class Accounts(Struct, frozen=True):
    """Every provider by name, the files that keys were read from, and what is wrong or odd."""

    providers: dict[str, ProviderEntry]
    files: tuple[Path, ...]
    problems: tuple[ConfigProblem, ...]
    warnings: tuple[ConfigProblem, ...]


def open_accounts(located: Located, sections: Mapping[str, ProviderSection], env: Mapping[str, str]) -> Accounts:
    """Turn the `providers` section into entries, each on or off with the reason."""
    entries: dict[str, ProviderEntry] = {}
    files: list[Path] = []
    problems: list[ConfigProblem] = []
    warnings: list[ConfigProblem] = []
    local: str | None = None
    for name, section in sections.items():
        problems += _misfits(located, name, section)
        if DIALECTS[section.dialect].local:
            if local is not None:
                message = f'providers.{name}: "{local}" is the local provider already'
                problems.append(located.complaint(("providers", name), message, f"move its models under {local}"))
            local = name
        entry, resolutions = _entry(name, section, env)
        entries[name] = entry
        files += [found.file for found in resolutions if found.file is not None]
        if entry.api_key is not None and _crosses_a_network_in_clear(entry.base_url):
            message = f"providers.{name}: its key would travel over plain http"
            warnings.append(located.complaint(("providers", name, "base_url"), message, "use https://"))
    return Accounts(entries, tuple(files), tuple(problems), tuple(warnings))


def settle_gateway(
    located: Located,
    section: GatewaySection,
    overrides: Mapping[str, Override],
    env: Mapping[str, str],
    *,
    has_issued_keys: bool = False,
) -> tuple[GatewaySettings, tuple[Path, ...], tuple[ConfigProblem, ...]]:
    """The gateway's own settings, the files its keys came from, and what stands in the way of starting so.

    Args:
        located: The file.
        section: Its `gateway` section with the overrides.
        overrides: Those.
        env: The environment.
        has_issued_keys: Whether there are client keys besides those of the configuration.
    """

    def complain(key: str, *rest: int | str, message: str, fix: str) -> ConfigProblem:
        override = overrides.get(key)
        if override is not None:
            return ConfigProblem(override.origin, message, fix)
        return located.complaint(("gateway", key, *rest), message, fix)

    doors, files, problems = _settle_doors(section, env, complain)
    elsewhere, more_files, more_problems = _settle_elsewhere(section, env, complain)
    files += more_files
    problems += more_problems
    has_issued_keys = has_issued_keys or section.postgres is not None  # the fleet's
    if not section.client_keys and not has_issued_keys and not is_loopback(section.host):
        message = f"gateway.host {section.host} can be reached from elsewhere, and there are no client keys"
        fix = "run `mixgate keys create`, add `client_keys: [env:NAME]` under gateway, or listen on 127.0.0.1"
        problems.append(complain("host", message=message, fix=fix))
    settings = GatewaySettings(
        host=section.host,
        port=section.port,
        client_keys=doors.client_keys,
        admin_token=doors.admin_token,
        metrics_token=doors.metrics_token,
        viewer_token=doors.viewer_token,
        trusted_proxies=tuple(section.trusted_proxies),
        hosts=tuple(section.hosts),
        tls=None if section.tls is None else Tls(Path(section.tls.cert), Path(section.tls.key)),
        log=settle_log(section.log),
        telemetry=elsewhere.telemetry,
        postgres=elsewhere.postgres,
        redis=elsewhere.redis,
        alerts=elsewhere.alerts,
        drain_s=section.drain_s,
        workers=section.workers,
        in_flight_max=section.in_flight_max,
        in_flight_per_key_max=section.in_flight_per_key_max,
    )
    problems += _tls_problems(settings.tls, overrides, complain)
    return settings, tuple(files), tuple(problems)


class _Doors(Struct, frozen=True):
    """What callers must show."""

    client_keys: tuple[Secret, ...]
    admin_token: Secret | None
    metrics_token: Secret | None
    viewer_token: Secret | None


def _settle_doors(
    section: GatewaySection, env: Mapping[str, str], complain: Callable[..., ConfigProblem]
) -> tuple[_Doors, list[Path], list[ConfigProblem]]:
    """These, the files they came from, and what is wrong with them."""
    problems: list[ConfigProblem] = []
    keys: list[Secret] = []
    files: list[Path] = []
    for position, reference in enumerate(section.client_keys):
        found = resolve(reference, env)
        files += [found.file] if found.file is not None else []
        if found.secret is None:
            # Left out in silence, one missing variable would open the gateway to everybody.
            message = f"the client key {reference} does not resolve: {found.reason}"
            problems.append(complain("client_keys", position, message=message, fix=found.fix))
        else:
            keys.append(found.secret)
    admin_token = _token("admin", section.admin_token, env, keys)
    metrics_token = _token("metrics", section.metrics_token, env, keys)
    viewer_token = _token("viewer", section.viewer_token, env, keys)
    tokens = {"admin_token": admin_token, "metrics_token": metrics_token, "viewer_token": viewer_token}
    for name, token in tokens.items():
        files += [token.file] if token.file is not None else []
        if token.reason:
            problems.append(complain(name, message=token.reason, fix=token.fix))
    return _Doors(tuple(keys), admin_token.secret, metrics_token.secret, viewer_token.secret), files, problems


class _Elsewhere(Struct, frozen=True):
    """Whom the gateway talks to besides providers."""

    telemetry: Telemetry | None
    postgres: PostgresSettings | None
    redis: RedisSettings | None
    alerts: tuple[AlertTarget, ...]


def _settle_elsewhere(
    section: GatewaySection, env: Mapping[str, str], complain: Callable[..., ConfigProblem]
) -> tuple[_Elsewhere, list[Path], list[ConfigProblem]]:
    """These with their secrets, the files that those came from, and what is wrong with them."""
    telemetry, files, problems = settle_telemetry(section.telemetry, env, complain)
    postgres, more_files, more_problems = settle_postgres(section.postgres, env, complain)
    redis, redis_files, redis_problems = settle_redis(section.redis, env, complain)
    alerts, alert_files, alert_problems = settle_alerts(section.alerts, env, complain)
    return (
        _Elsewhere(telemetry, postgres, redis, alerts),
        [*files, *more_files, *redis_files, *alert_files],
        [*problems, *more_problems, *redis_problems, *alert_problems],
    )


def _tls_problems(
    tls: Tls | None, overrides: Mapping[str, Override], complain: Callable[..., ConfigProblem]
) -> list[ConfigProblem]:
    """Files that are not there."""
    problems: list[ConfigProblem] = []
    for name, path in () if tls is None else (("cert", tls.cert), ("key", tls.key)):
        if not path.is_file():
            key = f"tls_{name}" if f"tls_{name}" in overrides else "tls"
            message = f"gateway.tls.{name}: there is no file {path}"
            problems.append(complain(key, name, message=message, fix="name the PEM file by its absolute path"))
    return problems


def _token(what: str, reference: str | None, env: Mapping[str, str], keys: Sequence[Secret]) -> Resolution:
    """What a token's reference comes to, with the reason where it cannot be used."""
    if reference is None:
        return Resolution()
    found = resolve(reference, env)
    if found.secret is None:
        return structs.replace(found, reason=f"the {what} token {reference} does not resolve: {found.reason}")
    if found.secret in keys:
        verb = {"admin": "administer", "metrics": "read metrics"}.get(what, "open the dashboard")
        reason = f"the {what} token is a client key too, and those must not {verb}"
        return structs.replace(found, reason=reason, fix="give it a value of its own")
    return found


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() in {"localhost", "localhost.localdomain", "ip6-localhost"}


def _misfits(located: Located, name: str, section: ProviderSection) -> list[ConfigProblem]:
    """Keys that do not go with the dialect or with one another."""
    defaults = DIALECTS[section.dialect]
    problems: list[ConfigProblem] = []
    if defaults.local:
        for key in ("base_url", "api_key", "transport", "proxy"):
            if getattr(section, key) is not None:
                message = f"providers.{name}: a local provider has no {key}"
                fix = "take it out; for a server of your own use `dialect: openai`"
                problems.append(located.complaint(("providers", name, key), message, fix))
    elif section.base_url is None and defaults.base_url is None and not defaults.aws:
        message = f'providers.{name} needs "base_url"'
        fix = "add the server's URL up to and without /chat/completions, as in http://127.0.0.1:8000/v1"
        problems.append(located.complaint(("providers", name), message, fix))
    if defaults.aws and section.region is not None and REGION.fullmatch(section.region) is None:
        message = f"providers.{name}: there is no AWS region of that form"
        problems.append(located.complaint(("providers", name, "region"), message, "write it as in us-east-1"))
    if defaults.library is not None:
        for key in ("transport", "proxy"):
            if getattr(section, key) is not None:
                message = f"providers.{name}: {key} is not ours to choose where {defaults.library} does the calling"
                problems.append(located.complaint(("providers", name, key), message, "take it out"))
    if section.proxy is not None and section.transport == "http":
        message = f"providers.{name}: the http transport knows no proxy"
        fix = "write `transport: aiohttp`, or leave transport out"
        problems.append(located.complaint(("providers", name, "transport"), message, fix))
    return problems


def _entry(name: str, section: ProviderSection, env: Mapping[str, str]) -> tuple[ProviderEntry, list[Resolution]]:
    entry, found = _keyed_entry(name, section, env)
    if not DIALECTS[section.dialect].aws:
        return entry, found
    account = look(section.region, section.profile, section.base_url, env)
    entry = structs.replace(entry, aws=True, base_url=account.base_url, region=account.region)
    if not entry.on or (section.api_key is not None and account.region is not None):
        return entry, found  # its own key decides, not what else lies around
    if account.bearer is not None and account.bearer.secret is not None:
        entry = structs.replace(entry, api_key=account.bearer.secret)
    reason, fix = account.off_reason, account.fix
    if account.bearer is not None and account.bearer.secret is None:
        reason, fix = account.bearer.reason, account.bearer.fix
    on = reason is None
    return structs.replace(entry, on=on, off_reason=reason, fix=fix, variables=AWS_VARIABLES), found


def _keyed_entry(name: str, section: ProviderSection, env: Mapping[str, str]) -> tuple[ProviderEntry, list[Resolution]]:
    defaults = DIALECTS[section.dialect]
    references = {
        "api_key": section.api_key or defaults.api_key,
        "proxy": section.proxy if section.proxy and is_reference(section.proxy) else None,
    }
    found = {key: resolve(reference, env) for key, reference in references.items() if reference}
    failed = next((item for item in found.values() if item.secret is None), None)
    secrets = {key: item.secret for key, item in found.items()}
    proxy = secrets.get("proxy")
    if section.proxy and not is_reference(section.proxy):
        proxy = Secret(section.proxy, "proxy")
    entry = ProviderEntry(
        name=name,
        dialect=section.dialect,
        base_url=section.base_url or defaults.base_url or "",
        api_key=secrets.get("api_key"),
        transport="litellm" if defaults.library else section.transport or ("aiohttp" if section.proxy else "http"),
        proxy=proxy,
        region=section.region,
        profile=section.profile,
        local=defaults.local,
        on=failed is None,
        off_reason=failed.reason if failed else None,
        fix=failed.fix if failed else None,
        variables=tuple(item.variable for item in found.values() if item.variable),
        data=_data_policy(section, local=defaults.local),
    )
    missing = why_missing(defaults.library) if defaults.library else None
    if missing is not None:
        entry = structs.replace(entry, on=False, off_reason=missing[0], fix=missing[1])
    return entry, list(found.values())


def _data_policy(section: ProviderSection, *, local: bool) -> DataPolicy:
    said = section.data_policy
    if said is None:
        # Nothing leaves this machine, and the worker keeps nothing.
        return DataPolicy(collects=False, retains=False) if local else UNKNOWN_DATA_POLICY
    return DataPolicy(said.collects, said.retains)


def _crosses_a_network_in_clear(url: str) -> bool:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "http" or is_loopback(host):
        return False
    try:
        return not ipaddress.ip_address(host).is_private
    except ValueError:
        return "." in host
