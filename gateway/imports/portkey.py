"""A config of Portkey's gateway: a tree of targets under strategies.

https://portkey.ai/docs/api-reference/config-object
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import zip_longest
from typing import Any, Final

from msgspec import Struct

from gateway.imports.amounts import read_json, weight
from gateway.imports.blocks import Account, Blocks, base_url_of, good_upstream, reference_to, region_of
from gateway.imports.draft import Draft, ImportSourceError, RouteDraft, fields_of, is_name, named, settle
from gateway.imports.vendors import bridged, find_vendor
from providers.json_values import elements, members

DEPTH_MAX: Final = 8
TARGETS_MAX: Final = 500

_READ_TARGET: Final = {"provider", "api_key", "override_params", "custom_host", "aws_region", "strategy", "targets"}
_READ_CONFIG: Final = {*_READ_TARGET, "mode"}
_INHERITED: Final = ("provider", "api_key", "custom_host", "aws_region")
_MODES: Final = ("fallback", "loadbalance", "single")
_WHOLE: Final = Decimal(1)
"""What a target without a weight has."""


class _Tier(Struct):
    """Endpoints that share the load."""

    shares: dict[str, Decimal]
    """By Endpoint id."""
    weighed: bool = False
    """Whether the source says so, or they are simply all the same."""

    def add(self, other: "_Tier", times: Decimal) -> None:
        """Let the others share with these, as if they were one with so much weight."""
        total = sum(other.shares.values())
        for endpoint, share in other.shares.items():
            part = times * share / total if len(other.shares) > 1 and total else times
            self.shares[endpoint] = self.shares.get(endpoint, Decimal(0)) + part
        self.weighed = self.weighed or other.weighed


def is_portkey_config(content: object) -> bool:
    """Whether decoded JSON is this kind of file."""
    config = members(content)
    inherits = "override_params" in config and bool({"provider", "virtual_key"} & set(config))
    return bool(elements(config.get("targets"))) or inherits


def from_portkey_config(text: bytes, name: str, *, env: Mapping[str, str], as_of: str) -> Draft:
    """Convert a config.

    Args:
        text: The file.
        name: What the Model is to be called that its targets serve: the config itself has no name for it.
        env: The environment, for URLs that the file takes from there.
        as_of: The day on which it is read.

    Raises:
        ImportSourceError: It is something else, or holds nothing that can be used.
    """
    content = members(read_json(text))
    if not is_portkey_config(content):
        raise ImportSourceError("it has no `targets`", "name a config of Portkey's gateway, or say what it is: --from")
    if not (is_name(name) and is_name(f"{name}-{TARGETS_MAX}")):  # the name of the last group of targets
        raise ImportSourceError(f"{named(name)} is no name for a Model", "give one with --name")
    return _Conversion(content, name, env, as_of).run()


class _Conversion:
    """One config on its way."""

    def __init__(self, content: Mapping[str, Any], name: str, env: Mapping[str, str], as_of: str) -> None:
        self._content = content
        self._name = name
        self._env = env
        self._draft = Draft(f"Converted from a config of Portkey's gateway on {as_of}.")
        self._blocks = Blocks(self._draft, {name})
        self._targets = 0

    def run(self) -> Draft:
        self._write_routes(self._tiers(self._content, {}, "config", 0))
        self._blocks.finish()
        left = [key for key in self._content if key not in _READ_CONFIG]
        if left:
            self._draft.note(f"of the config itself: {fields_of(left)}")
        return settle(self._draft)

    def _tiers(self, group: Mapping[str, Any], inherited: Mapping[str, Any], who: str, depth: int) -> list[_Tier]:
        """Who is asked, in order."""
        strategy = members(group.get("strategy"))
        mode = strategy.get("mode", group.get("mode", "single"))
        if mode not in _MODES:
            self._draft.note(f"{who}: its strategy is none of {', '.join(_MODES)}: its targets are asked in order")
        if strategy.get("on_status_codes"):
            self._draft.note(f"{who}: on_status_codes; which errors another endpoint may mend is decided here")
        given = {**inherited, **{key: value for key, value in group.items() if key in _INHERITED}}
        given["override_params"] = {
            **members(inherited.get("override_params")),
            **members(group.get("override_params")),
        }
        targets = elements(group.get("targets"))[:TARGETS_MAX] or [{}]
        if mode == "single" and len(targets) > 1:
            self._draft.note(f"{who}: the strategy single; only its first target is read")
            targets = targets[:1]
        found = [
            self._member(members(target), given, f"{who}.targets[{position}]", depth)
            for position, target in enumerate(targets)
        ]
        if mode != "loadbalance":
            return [tier for tiers in found for tier in tiers]
        weights = self._weights(who, [members(target) for target in targets])
        ranks: list[_Tier] = []
        # What each member falls back on comes after what each of them begins with.
        for rank in zip_longest(*found):
            ranks.append(_Tier({}, weighed=weights is not None))
            for place, tier in enumerate(rank):
                if tier is not None:
                    ranks[-1].add(tier, _WHOLE if weights is None else weights[place])
        return ranks

    def _weights(self, who: str, targets: Sequence[Mapping[str, Any]]) -> list[Decimal] | None:
        """The shares of the targets; None where nobody wrote any."""
        if not any("weight" in target for target in targets):
            return None
        weights = [weight(target.get("weight", 1)) for target in targets]
        sound = [one for one in weights if one is not None]
        if len(sound) < len(weights) or not any(sound):
            self._draft.note(f"{who}: weights that are none; balanced shares the load by price and health")
            return None
        return sound

    def _member(self, target: Mapping[str, Any], given: Mapping[str, Any], who: str, depth: int) -> list[_Tier]:
        if not elements(target.get("targets")):
            endpoint = self._leaf(who, target, given)
            return [] if endpoint is None else [_Tier({endpoint: _WHOLE})]
        if depth >= DEPTH_MAX:
            self._draft.note(f"{who}: nested too deep, and left out")
            return []
        return self._tiers(target, given, who, depth + 1)

    def _write_routes(self, tiers: list[_Tier]) -> None:
        """The tiers as a Route and what it falls back on; whoever was asked before is not asked again."""
        asked: set[str] = set()
        fresh: list[_Tier] = []
        for tier in tiers:
            new = {one: share for one, share in tier.shares.items() if one not in asked}
            asked.update(new)
            fresh += [_Tier(new, weighed=tier.weighed)] if new else []
        if not fresh:
            return
        if all(len(tier.shares) == 1 for tier in fresh):
            facts: dict[str, Any] = {"policy": "ordered"} if len(fresh) > 1 else {}
            self._draft.routes[self._name] = RouteDraft(
                {**facts, "endpoints": [one for tier in fresh for one in tier.shares]}
            )
            return
        fallback: list[str] = []
        for number, tier in enumerate(fresh[1:], 2):
            fallback.append(f"{self._name}-{number}" if len(tier.shares) > 1 else next(iter(tier.shares)))
            if len(tier.shares) > 1:
                self._draft.routes[fallback[-1]] = RouteDraft(_sharing(tier))
        facts = {**_sharing(fresh[0]), **({"fallback": fallback} if fallback else {})}
        self._draft.routes = {self._name: RouteDraft(facts), **self._draft.routes}

    def _leaf(self, who: str, target: Mapping[str, Any], given: Mapping[str, Any]) -> str | None:
        """The Endpoint id of one target."""
        self._targets += 1
        if self._targets > TARGETS_MAX:
            self._draft.note(f"more than {TARGETS_MAX} targets: the rest is left out")
            return None
        merged = {**given, **target}
        params = {**members(given.get("override_params")), **members(target.get("override_params"))}
        slug, model = merged.get("provider"), params.get("model")
        if isinstance(model, str) and model.startswith("@") and "/" in model:
            slug, _, model = model.partition("/")
        slug = slug.removeprefix("@") if isinstance(slug, str) else ""
        if not slug or model is None:
            what = "provider (a virtual key says it only to Portkey)" if not slug else "override_params.model"
            self._draft.note(f"{who}: names no {what}, and is left out")
            return None
        vendor = find_vendor(slug) or bridged(slug)
        if find_vendor(slug) is None and isinstance(model, str):
            model = f"{vendor.bridge or slug}/{model}"
        upstream = good_upstream(model, self._draft, who)
        host = merged.get("custom_host")
        url = base_url_of(host, vendor, self._env) if host else None
        if upstream is None or (host and url is None) or (vendor.own_server and url is None):
            self._draft.note(f"{who}: its custom_host or its model cannot be carried over, and it is left out")
            return None
        region = region_of(merged.get("aws_region"), self._draft) if vendor.name == "bedrock" else None
        account = Account(vendor, url if url != vendor.base_url else None, reference_to(merged.get("api_key")), region)
        endpoint, row = self._blocks.place(account, upstream)
        row.facts.setdefault("serves", self._name)
        left = [key for key in target if key not in {*_READ_TARGET, "weight"}]
        left += [f"override_params.{key}" for key in params if key != "model"]
        if left:
            row.notes.append(f"not carried over from {who}: {fields_of(left)}")
        return endpoint


def _sharing(tier: _Tier) -> dict[str, Any]:
    """How a Route says it; one whose members are not weighed is balanced."""
    weights = {endpoint: weight(share) for endpoint, share in tier.shares.items()}
    weighed = tier.weighed and len(weights) > 1 and None not in weights.values() and any(weights.values())
    return {**({"policy": "weighted", "weights": weights} if weighed else {}), "endpoints": [*tier.shares]}
