"""The configuration of LiteLLM's proxy (`config.yaml`): its model list, fallbacks, aliases and routing strategy.

https://docs.litellm.ai/docs/proxy/configs
"""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from msgspec import Struct

from gateway.config.source import read_source
from gateway.errors import ConfigError
from gateway.imports.amounts import seconds, weight
from gateway.imports.blocks import Account, Blocks, base_url_of, good_upstream, reference_to, region_of
from gateway.imports.draft import (
    Draft,
    ImportSourceError,
    RouteDraft,
    RowDraft,
    fields_of,
    is_name,
    named,
    settle,
)
from gateway.imports.litellm_prices import facts_of_model
from gateway.imports.vendors import BRIDGE, OPENAI, Vendor, bridged, find_vendor, vendor_of_model
from providers.json_values import elements, members

DEPLOYMENTS_MAX: Final = 2000

_STRATEGIES: Final = {
    "simple-shuffle": None,
    "least-busy": "least_busy",
    "usage-based-routing": None,
    "usage-based-routing-v2": None,
    "latency-based-routing": "latency",
    "cost-based-routing": "price",
}
_SHUFFLED: Final = (None, "simple-shuffle")
"""The strategies under which weights count."""
USUAL_TOTAL_S: Final = 600
"""How long a request with all its Attempts, and an answer that is no stream, may take where nothing is written."""
_TIMEOUTS: Final = {
    "timeout": ("whole_timeout_s",),
    "stream_timeout": ("first_token_timeout_s", "last_first_token_timeout_s"),
}
"""There: an answer that is no stream, and the first chunk of one that is. https://docs.litellm.ai/docs/proxy/timeout"""
_READ_PARAMS: Final = {"model", "api_base", "base_url", "api_key", "custom_llm_provider", "order", "weight", *_TIMEOUTS}
_READ_SECTIONS: Final = {"model_list", "router_settings", "litellm_settings", "general_settings"}
_READ_SETTINGS: Final = {
    "fallbacks",
    "default_fallbacks",
    "context_window_fallbacks",
    "model_group_alias",
    "routing_strategy",
}
_READ_LIMITS: Final = {
    ("router_settings", "timeout"),
    ("router_settings", "stream_timeout"),
    ("litellm_settings", "request_timeout"),
}
_AWS_PARAMS: Final = ("aws_region_name", "aws_profile_name")


class _Deployment(Struct):
    """An entry of the model list."""

    public: str
    endpoint: str
    row: RowDraft
    order: int
    who: str
    params: Mapping[str, Any]


def is_proxy_config(content: object) -> bool:
    """Whether decoded YAML is this kind of file."""
    return bool(elements(members(content).get("model_list")))


def from_proxy_config(text: bytes, name: str, env: Mapping[str, str], *, as_of: str) -> Draft:
    """Convert a proxy's configuration.

    Args:
        text: The file.
        name: Its name, for complaints.
        env: The environment, for URLs that the file takes from there. Keys stay references.
        as_of: The day on which it is read.

    Raises:
        ImportSourceError: It is something else, or holds nothing that can be used.
    """
    try:
        content = members(read_source(text, name).plain())
    except ConfigError as error:
        raise ImportSourceError(f"it cannot be read: {error.problems[0]}", "mend it, or name another file") from error
    if not is_proxy_config(content):
        raise ImportSourceError("it has no `model_list`", "name a config.yaml of LiteLLM's proxy, or say what it is")
    return _Conversion(content, env, as_of).run()


class _Conversion:
    """One file on its way."""

    def __init__(self, content: Mapping[str, Any], env: Mapping[str, str], as_of: str) -> None:
        self._content = content
        self._env = env
        self._as_of = as_of
        self._draft = Draft(f"Converted from the configuration of a LiteLLM proxy on {as_of}.")
        self._settings = {**members(content.get("litellm_settings")), **members(content.get("router_settings"))}
        public = {members(entry).get("model_name") for entry in content["model_list"][:DEPLOYMENTS_MAX]}
        aliases = members(self._settings.get("model_group_alias"))
        self._blocks = Blocks(self._draft, {one for one in (*public, *aliases) if isinstance(one, str)})

    def run(self) -> Draft:
        deployments = list(self._deployments())
        for deployment in deployments:
            deployment.row.facts.setdefault("serves", deployment.public)
        for public in dict.fromkeys(one.public for one in deployments):
            own = sorted((one for one in deployments if one.public == public), key=lambda one: one.order)
            facts: dict[str, Any] = {}
            if len({one.order for one in own}) > 1:
                facts["policy"] = "ordered"
            endpoints = list(dict.fromkeys(one.endpoint for one in own))
            facts |= self._weights(own, "policy" not in facts and len(endpoints) > 1)
            facts["endpoints"] = endpoints
            facts |= self._timeouts(own)
            self._draft.routes[public] = RouteDraft(facts)
        self._aliases()
        self._fallbacks()
        self._context_window_fallbacks()
        self._strategy()
        self._rest()
        self._blocks.finish()
        return settle(self._draft)

    def _deployments(self) -> Iterator[_Deployment]:
        entries = self._content["model_list"]
        if len(entries) > DEPLOYMENTS_MAX:
            self._draft.note(f"the model list has {len(entries)} entries; the first {DEPLOYMENTS_MAX} are read")
        for position, entry in enumerate(entries[:DEPLOYMENTS_MAX]):
            public, params = members(entry).get("model_name"), members(members(entry).get("litellm_params"))
            who = f"model_list[{position}]"
            if not is_name(public) or "*" in str(public):
                self._draft.note(f"{who}: {named(public)} is no name for a Model (wildcards are not read)")
                continue
            found = self._deployment(who, str(public), params, members(members(entry).get("model_info")))
            if found is not None:
                yield found

    def _deployment(
        self, who: str, public: str, params: Mapping[str, Any], info: Mapping[str, Any]
    ) -> _Deployment | None:
        vendor, model = self._vendor(params)
        region = region_of(params.get("aws_region_name"), self._draft) if vendor.name == "bedrock" else None
        if vendor.name == "bedrock":
            first, _, rest = model.partition("/")
            if rest and (region_in_model := region_of(first, Draft(""))):
                region, model = region_in_model, rest
            model = model.removeprefix("converse/").removeprefix("invoke/")
        upstream = good_upstream(model, self._draft, who)
        if upstream is None:
            return None
        written = params.get("api_base") or params.get("base_url")
        url = base_url_of(written, vendor, self._env) if written else None
        if (written and url is None) or (vendor.own_server and url is None):
            self._draft.note(
                f"{who} ({named(public)}): its api_base is missing, comes from a variable that is not set, or is no "
                "plain URL; the deployment is left out"
            )
            return None
        endpoint, row = self._blocks.place(
            Account(vendor, url if url != vendor.base_url else None, reference_to(params.get("api_key")), region),
            upstream,
        )
        if not row.facts:
            figures = {**params, **info}
            row.facts, row.notes = facts_of_model(figures, self._as_of)
            row.facts = {key: value for key, value in row.facts.items() if key not in {"source", "as_of"}}
        known = {*_READ_PARAMS, *_AWS_PARAMS} if vendor.name == "bedrock" else _READ_PARAMS
        left = [key for key in params if key not in known and "cost" not in key]
        if left:
            row.notes.append(f"not carried over from {who}: {fields_of(left)}")
        order = params.get("order")
        return _Deployment(public, endpoint, row, order if isinstance(order, int) else 0, who, params)

    def _weights(self, own: Sequence[_Deployment], free: bool) -> dict[str, Any]:  # noqa: FBT001 (whether they may count)
        """Shares of the requests; a deployment without one has none as soon as another has one."""
        written = [one for one in own if "weight" in one.params]
        weights: dict[str, Decimal] = {}
        sound = free and self._settings.get("routing_strategy") in _SHUFFLED
        for one in own:
            amount = weight(one.params.get("weight", 0))
            sound = sound and amount is not None
            weights[one.endpoint] = weights.get(one.endpoint, Decimal(0)) + (amount or 0)
        total = sum(weights.values())
        if written and sound and weight(total):
            return {"policy": "weighted", "weights": weights}
        for one in written:
            one.row.notes.append(f"not carried over from {one.who}: weight")
        return {}

    def _timeouts(self, own: Sequence[_Deployment]) -> dict[str, Any]:
        """The limits of a Route hold for all of its Endpoints, so all must agree on them."""
        limits: dict[str, Any] = {}
        for key, names in _TIMEOUTS.items():
            asked = {seconds(one.params.get(key, self._usual_limit(key))) for one in own}
            limit = asked.pop()
            if asked or limit is None:
                for one in own:
                    if key in one.params:
                        one.row.notes.append(f"not carried over from {one.who}: {key}")
            elif limit != USUAL_TOTAL_S:
                limits |= dict.fromkeys(names, limit)
        if limits and (longest := max(limits.values())) > USUAL_TOTAL_S:
            limits["total_timeout_s"] = longest
        return {"timeouts": limits} if limits else {}

    def _usual_limit(self, key: str) -> object:
        """What holds for a deployment without a limit of its own."""
        router = members(self._content.get("router_settings"))
        beneath = members(self._content.get("litellm_settings")).get("request_timeout") if key == "timeout" else None
        return router.get(key, beneath)

    def _vendor(self, params: Mapping[str, Any]) -> tuple[Vendor, str]:
        """Whose model it is, and the id that they know it by."""
        model = str(params.get("model", ""))
        asked = params.get("custom_llm_provider")
        if isinstance(asked, str) and asked:
            rest = model.removeprefix(f"{asked}/")
            known = find_vendor(asked)
            return (bridged(asked), f"{asked}/{rest}") if known is None else (known, rest)
        prefix, slash, rest = model.partition("/")
        known = find_vendor(prefix) if slash else vendor_of_model(model)
        if known is not None:
            return known, rest if slash else model
        if not slash and params.get("api_base"):
            return OPENAI, model
        return bridged(prefix if slash else BRIDGE), model

    def _aliases(self) -> None:
        for alias, target in members(self._settings.get("model_group_alias")).items():
            meant = members(target).get("model", target)
            route = self._draft.routes.get(str(meant))
            if route is None or not is_name(alias) or alias in self._draft.routes:
                self._draft.note(f"the alias {named(alias)} of {named(meant)}: one of the two cannot be such a name")
            else:
                route.facts.setdefault("aliases", []).append(alias)

    def _fallbacks(self) -> None:
        rules = self._settings.get("fallbacks")
        pairs = [pair for rule in elements(rules) for pair in members(rule).items()]
        named_ones = {public for public, _ in pairs}
        if default := elements(self._settings.get("default_fallbacks")):
            pairs += [(public, default) for public in self._draft.routes if public not in named_ones]
        for public, targets in pairs:
            route = self._draft.routes.get(public)
            if route is None:
                self._draft.note(f"a fallback of {named(public)}, which is no Model here")
                continue
            for target in elements(targets) or [targets]:
                self._fall_back(public, route, target)

    def _context_window_fallbacks(self) -> None:
        """Who is too small for a prompt is not asked for it here, so those that are larger need only be fallbacks."""
        for public, targets in (
            pair for rule in elements(self._settings.get("context_window_fallbacks")) for pair in members(rule).items()
        ):
            route = self._draft.routes.get(public)
            if route is None:
                self._draft.note(f"a context_window_fallback of {named(public)}, which is no Model here")
                continue
            before = list(route.facts.get("fallback", ()))
            for target in elements(targets) or [targets]:
                self._fall_back(public, route, target)
            added = [one for one in route.facts.get("fallback", ()) if one not in before]
            if added:
                shown = ", ".join(map(named, added))
                route.notes.append(f"fallback {shown}: there for long prompts alone, here after any failure, too")

    def _fall_back(self, public: str, route: RouteDraft, target: object) -> None:
        if not isinstance(target, str) or target not in self._draft.routes:
            self._draft.note(f"the fallback of {named(public)} on {named(target)}, which is no Model here")
        elif target != public and target not in route.facts.setdefault("fallback", []):
            route.facts["fallback"].append(target)

    def _strategy(self) -> None:
        strategy = self._settings.get("routing_strategy")
        if strategy is None:
            return
        if not isinstance(strategy, str) or strategy not in _STRATEGIES:
            self._draft.note("its routing strategy: the default, balanced, stands in for it")
        elif policy := _STRATEGIES[strategy]:
            for route in self._draft.routes.values():
                if len(route.facts["endpoints"]) > 1:
                    route.facts.setdefault("policy", policy)
        elif strategy != "simple-shuffle":
            self._draft.note("its routing strategy: the default, balanced, stands in for it")

    def _rest(self) -> None:
        draft = self._draft
        general = members(self._content.get("general_settings"))
        if general.get("master_key"):
            draft.note("a master key guards the proxy; here: `gateway: {client_keys: [env:NAME]}`, once NAME is set")
        for section in ("litellm_settings", "router_settings", "general_settings"):
            settings = members(self._content.get(section))
            left = [key for key in settings if key not in {*_READ_SETTINGS, "master_key"}]
            left = [key for key in left if (section, key) not in _READ_LIMITS or seconds(settings[key]) is None]
            if left:
                draft.note(f"{section}: {fields_of(left)}")
        variables = members(self._content.get("environment_variables"))
        if variables:
            draft.note(f"environment_variables: export them yourself: {fields_of(variables)}")
        left = [key for key in self._content if key not in {*_READ_SECTIONS, "environment_variables"}]
        if left:
            draft.note(f"whole sections: {fields_of(left)}")
