"""Whether each Endpoint may be asked, by what became of asking it: state machines, and nothing that waits."""

from gateway.health.budget import HedgeBudget, RetryBudget
from gateway.health.endpoint import EndpointHealth, OnChange
from gateway.health.fleet_health import Health
from gateway.health.kinds import FailureKind, Permit, Result, kind_of
from gateway.health.uptime import Share

__all__ = [
    "EndpointHealth",
    "FailureKind",
    "Health",
    "HedgeBudget",
    "OnChange",
    "Permit",
    "Result",
    "RetryBudget",
    "Share",
    "kind_of",
]
