"""Gathers deployments, each a model somewhere behind some key, into provider blocks with rows and references."""

import re
from collections.abc import Collection, Mapping
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from gateway.config.aws import REGION
from gateway.config.secrets import is_reference, looks_like_key
from gateway.imports.draft import Draft, ProviderDraft, RowDraft, is_name, named
from gateway.imports.vendors import BRIDGE, Vendor

BRIDGE_NOTE: Final = "providers of `dialect: litellm` need the litellm package: pip install 'mixgate[litellm]'"

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


class Account(Struct, frozen=True):
    """Where and with what credentials a vendor is reached."""

    vendor: Vendor
    base_url: str | None = None
    """None: where the vendor itself answers."""
    key: str | None = None
    """A reference, or what stood in the source itself: such a thing is told from others, and never written."""
    region: str | None = None


class Blocks:
    """Provider blocks that grow as deployments come in.

    Args:
        draft: Where the blocks and the notes go.
        public: Names that clients use: no block may be called so that one of its Endpoints has such a name.
    """

    def __init__(self, draft: Draft, public: Collection[str]) -> None:
        self._draft = draft
        self._public = public
        self._names: dict[Account, str] = {}

    def place(self, account: Account, upstream: str) -> tuple[str, RowDraft]:
        """The Endpoint id and the row of a model there."""
        if account not in self._names:
            name = self._free_name(account.vendor.name)
            self._names[account] = name
            self._draft.providers[name] = ProviderDraft({"dialect": account.vendor.dialect})
        name = self._names[account]
        return f"{name}/{upstream}", self._draft.providers[name].row(upstream)

    def finish(self) -> None:
        """Write how each vendor is reached, once all are known: a key that was written out gets its own variable."""
        references = {account: _reference(account) for account in self._names}
        taken = {reference for reference in references.values() if reference is not None}
        for account, name in self._names.items():
            reference = references[account]
            if reference is None and account.key is not None and account.vendor.dialect != "bedrock_converse":
                reference = _free_variable(account.vendor, taken)
                taken.add(reference)
                self._draft.note(
                    f"a key of {account.vendor.name} was written out in the source. It is not here: revoke it, and "
                    f"export the new one as {reference.removeprefix('env:')}"
                )
            facts = self._draft.providers[name].facts
            if url := account.base_url or account.vendor.base_url:
                facts["base_url"] = url
            if reference is not None:
                facts["api_key"] = reference
            if account.region is not None:
                facts["region"] = account.region
            if account.vendor.dialect == BRIDGE:
                self._draft.note(BRIDGE_NOTE)

    def _free_name(self, wanted: str) -> str:
        number = 1
        while True:
            name = wanted if number == 1 else f"{wanted}-{number}"
            if name not in self._draft.providers and not any(one.startswith(f"{name}/") for one in self._public):
                return name
            number += 1


def _reference(account: Account) -> str | None:
    """The reference that a source has, or the vendor's usual one where it has nothing; None for a key written out."""
    if account.key is not None:
        return account.key if is_reference(account.key) else None
    # A server of one's own is called without a key unless the source names one; AWS has credentials of its own.
    usual = account.vendor.variable
    return f"env:{usual}" if usual and account.base_url is None else None


def _free_variable(vendor: Vendor, taken: Collection[str]) -> str:
    usual = vendor.variable or f"{re.sub('[^A-Z0-9]', '_', vendor.name.upper())}_API_KEY"
    number, reference = 1, f"env:{usual}"
    while reference in taken:
        number += 1
        reference = f"env:{usual}_{number}"
    return reference


def reference_to(value: object) -> str | None:
    """`env:NAME` for `os.environ/NAME`, `${NAME}` and `{{env.NAME}}`; other text as it is; None for none at all."""
    if not isinstance(value, str) or not value.strip():
        return None
    text = value.strip()
    for start, end in (("os.environ/", ""), ("${", "}"), ("{{env.", "}}")):
        if text.startswith(start) and text.endswith(end):
            name = text[len(start) : len(text) - len(end)].strip()
            if _VARIABLE.fullmatch(name) and is_reference(f"env:{name}"):
                return f"env:{name}"
    return text


def base_url_of(value: object, vendor: Vendor, env: Mapping[str, str]) -> str | None:
    """A base_url as the loader takes it.

    Args:
        value: What the source has, maybe `os.environ/NAME`.
        vendor: Whose it is.
        env: Where URLs that the source leaves to the environment are looked up.

    Returns:
        None where it cannot be one: no URL, more than host and path, or a credential in it.
    """
    text = reference_to(value)
    if text is not None and text.startswith("env:"):
        text = env.get(text.removeprefix("env:"), "").strip()
    if not text or looks_like_key(text) or re.search(r"[\s\x00-\x20\x7f-\U0010ffff\\]", text) or len(text) > 1024:
        return None
    try:
        parts = urlsplit(text)
        sound = parts.scheme.lower() in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    if not sound or parts.query or parts.fragment or "@" in parts.netloc:
        return None
    url = text.rstrip("/")
    for suffix in ("/chat/completions", "/models"):
        url = url.removesuffix(suffix).rstrip("/")
    return url if not vendor.path or url.endswith(vendor.path) else url + vendor.path


def region_of(value: object, draft: Draft) -> str | None:
    """An AWS region; none where the source leaves it to the environment, or has none that exists."""
    if not isinstance(value, str) or not value:
        return None
    if REGION.fullmatch(value):
        return value
    draft.note("an AWS region comes from the environment or has no known form: set `region` of that block")
    return None


def good_upstream(value: object, draft: Draft, who: str) -> str | None:
    """A model id that a row can have; a note where it cannot."""
    if isinstance(value, str) and is_name(value) and "*" not in value:
        return value
    draft.note(f"{who}: {named(value)} is no model that a row can stand for (wildcards are not read)")
    return None
