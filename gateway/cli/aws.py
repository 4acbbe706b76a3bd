"""What botocore itself says of AWS credentials, for commands that may take the time to ask."""

from functools import cache

from msgspec import structs

from gateway.config.catalogue import Catalogue, ProviderEntry
from providers.aws_signer import find_credentials


def confirm_credentials(catalogue: Catalogue) -> Catalogue:
    """The catalogue with those AWS providers off for which botocore finds nothing to sign with.

    Configuration only looks whether credentials are in sight; this looks them up, which may take seconds.
    """
    look_up = cache(find_credentials)
    providers = {
        name: _confirm(entry, look_up(entry.profile)) if _asks(entry) else entry
        for name, entry in catalogue.providers.items()
    }
    return structs.replace(catalogue, providers=providers)


def _asks(entry: ProviderEntry) -> bool:
    return entry.aws and entry.on and entry.api_key is None


def _confirm(entry: ProviderEntry, found: str | None) -> ProviderEntry:
    if found is not None:
        return entry
    profile = "" if entry.profile is None else f" for the profile {entry.profile}"
    return structs.replace(
        entry,
        on=False,
        off_reason=f"botocore finds no AWS credentials{profile}, though the environment or the AWS files name some",
        fix="see what `aws sts get-caller-identity` says, or export AWS_BEARER_TOKEN_BEDROCK=...",
    )
