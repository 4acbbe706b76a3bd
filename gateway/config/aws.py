"""Whether there are AWS credentials to use, and for which region, told from the environment and the shared AWS files.

This looks, it does not fetch: botocore itself finds the credentials, in a thread, when the first request needs them
(`providers.aws_signer`) or when `mixgate check` asks. Its half second of import has no place on the way to the first
answer. https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html
"""

import configparser
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from gateway.config.secrets import Resolution, resolve

AWS_FILE_MAX_BYTES: Final = 1024 * 1024
BEARER_VARIABLE: Final = "AWS_BEARER_TOKEN_BEDROCK"
AWS_VARIABLES: Final = (BEARER_VARIABLE, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
REGION = re.compile(r"[a-z]{2,4}(-[a-z]{2,16}){1,3}-\d{1,2}")

_HOST = re.compile(r"bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.")
_SIGNS: Final = (
    ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI",),
)
"""Variables that, set together, are a source of credentials."""
_PROFILE_SIGNS: Final = frozenset(
    {
        "aws_access_key_id",
        "role_arn",
        "credential_process",
        "sso_session",
        "sso_start_url",
        "web_identity_token_file",
        "login_session",
    }
)
"""Keys of a profile that, any one of them, are a source of credentials."""


class AwsAccount(Struct, frozen=True, kw_only=True):
    """What is known of a provider's AWS account before anybody asks AWS."""

    region: str | None = None
    base_url: str = ""
    bearer: Resolution | None = None
    off_reason: str | None = None
    fix: str | None = None


def look(region: str | None, profile: str | None, base_url: str | None, env: Mapping[str, str]) -> AwsAccount:
    """Where a provider is reached and whether credentials are in sight.

    Args:
        region: As written for the provider, else taken from its base_url, the environment, the profile.
        profile: As written for the provider; then credentials in variables do not count, as with botocore.
        base_url: As written for the provider, else made of the region.
        env: The environment; HOME says where the shared files are.
    """
    files = _SharedFiles(profile or env.get("AWS_PROFILE") or "default", env)
    place = region or _region_of(base_url) or env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION") or files.region
    if not place:
        fix = "write `region: us-east-1` (or another) under it, or export AWS_REGION=..."
        return AwsAccount(off_reason="no AWS region is known", fix=fix, base_url=base_url or "")
    if REGION.fullmatch(place) is None:
        return AwsAccount(off_reason="the AWS region is malformed", fix="write one as in us-east-1", base_url="")
    bearer = resolve(f"env:{BEARER_VARIABLE}", env) if env.get(BEARER_VARIABLE, "").strip() else None
    account = AwsAccount(region=place, base_url=base_url or bedrock_url(place), bearer=bearer)
    if bearer is not None:
        return account
    if profile is None and _in_environment(env):
        return account
    if files.found:
        return account
    return AwsAccount(region=place, base_url=account.base_url, off_reason=_reason(profile), fix=_fix(profile))


def bedrock_url(region: str) -> str:
    """Where Bedrock answers in a region."""
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return f"https://bedrock-runtime.{region}.{domain}"


def _region_of(base_url: str | None) -> str | None:
    match = _HOST.match(urlsplit(base_url).hostname or "") if base_url else None
    return match.group(1) if match else None


def _in_environment(env: Mapping[str, str]) -> bool:
    if any(all(env.get(name, "").strip() for name in names) for names in _SIGNS):
        return True
    # A machine's own role cannot be seen without asking the network: whoever relies on it says so.
    return env.get("AWS_EC2_METADATA_DISABLED", "").lower() == "false"


def _reason(profile: str | None) -> str:
    if profile is not None:
        return f"the AWS profile {profile} has no credentials in the shared AWS files"
    return f"neither {BEARER_VARIABLE} nor AWS credentials are set"


def _fix(profile: str | None) -> str:
    if profile is not None:
        return f"run `aws configure --profile {profile}`, or export {BEARER_VARIABLE}=..."
    return f"export {BEARER_VARIABLE}=..., or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run `aws configure`"


class _SharedFiles:
    """One profile in ~/.aws/credentials and ~/.aws/config. Its values are looked at, never kept."""

    def __init__(self, profile: str, env: Mapping[str, str]) -> None:
        home = env.get("HOME") or env.get("USERPROFILE") or ""
        self.region: str | None = None
        self.found = False
        for variable, name, section in (
            ("AWS_SHARED_CREDENTIALS_FILE", "credentials", profile),
            ("AWS_CONFIG_FILE", "config", profile if profile == "default" else f"profile {profile}"),
        ):
            chosen = env.get(variable)
            if not chosen and not home:
                continue
            path = (
                Path(home, chosen[2:]) if chosen and chosen.startswith("~/") else Path(chosen or f"{home}/.aws/{name}")
            )
            keys = _section(path, section)
            self.found = self.found or not _PROFILE_SIGNS.isdisjoint(keys)
            self.region = self.region or keys.get("region")


def _section(path: Path, name: str) -> Mapping[str, str]:
    """The keys of one section; none where the file or the section is not there, or cannot be read."""
    try:
        with path.open("rb") as file:
            text = file.read(AWS_FILE_MAX_BYTES).decode()
        parser = configparser.RawConfigParser(strict=False, default_section="")
        parser.read_string(text)
    except (OSError, ValueError, configparser.Error):
        return {}
    return dict(parser.items(name)) if parser.has_section(name) else {}
