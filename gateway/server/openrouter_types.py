"""Our error codes in the words of OpenRouter."""

from typing import Final

ERROR_TYPES: Final = {
    "answer_truncated": "provider_unavailable",
    "connect_failed": "provider_unavailable",
    "connection_reset": "provider_unavailable",
    "content_policy_violation": "content_policy_violation",
    "context_length_exceeded": "context_length_exceeded",
    "first_token_timeout": "timeout",
    "invalid_request": "invalid_request",
    "provider_credentials": "authentication",
    "provider_error": "server",
    "provider_garbled": "server",
    "provider_overloaded": "provider_overloaded",
    "provider_region": "permission_denied",
    "provider_stalled": "timeout",
    "provider_unknown_model": "not_found",
    "rate_limited": "rate_limit_exceeded",
    "server_shutdown": "provider_unavailable",
    "temporarily_unavailable": "provider_overloaded",
    "unsupported": "unprocessable",
}
"""Our codes in the words of OpenRouter's `error_type`, which is a closed list."""
