"""The ledger of a fleet: rows, prices, and what the rows come to by the hour and the day."""

from alembic import op

revision = "1"
down_revision = None

_TEXT = 'text COLLATE "C" NOT NULL'
_SUMS = ", ".join(
    f"{name} bigint NOT NULL"
    for name in (
        *("requests", "attempts", "failed", "estimated", "input_tokens", "output_tokens", "cached_tokens"),
        *("cache_write_tokens", "reasoning_tokens", "cost_in_nusd", "unknown_cost"),
    )
)
_ENTRY = (
    "CREATE TABLE entry (entry bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, replica text NOT NULL, "
    f"attempt_id {_TEXT} UNIQUE, unix_us bigint NOT NULL, key_id {_TEXT}, route {_TEXT}, model {_TEXT}, "
    f"endpoint {_TEXT}, provider {_TEXT}, surface {_TEXT}, stream boolean NOT NULL, price_id {_TEXT}, "
    f"prompt_tokens bigint NOT NULL, output_limit bigint, reserved_in_nusd bigint NOT NULL, app {_TEXT}, "
    f'referer {_TEXT}, "user" {_TEXT}, session {_TEXT}, tags {_TEXT}, ended_unix_us bigint NOT NULL, '
    f"outcome {_TEXT}, code text, input_tokens bigint, output_tokens bigint, cached_tokens bigint, "
    f"cache_write_tokens bigint, reasoning_tokens bigint, usage_source {_TEXT}, cost_in_nusd bigint, "
    f"cost_source {_TEXT}, ttft_ms bigint, duration_ms bigint NOT NULL, upstream_id text)"
)
_LOOKED_FOR = ("key_id", "model", "endpoint", "app")


def upgrade() -> None:
    """From nothing."""
    op.execute(_ENTRY)
    for column in _LOOKED_FOR:
        op.execute(f"CREATE INDEX entry_{column} ON entry ({column}, entry)")
    # Rows come nearly in the order of time: a few bytes for many pages say which to read.
    op.execute("CREATE INDEX entry_time ON entry USING brin (unix_us) WITH (autosummarize = on)")
    op.execute("CREATE INDEX entry_failed ON entry (outcome, entry) WHERE outcome <> 'ok'")
    op.execute(f"CREATE TABLE price_snapshot (price_id {_TEXT} PRIMARY KEY, endpoint {_TEXT}, data text NOT NULL)")
    for span in ("hour", "day"):
        op.execute(
            f'CREATE TABLE spend_{span} ("by" {_TEXT}, {span} bigint NOT NULL, name {_TEXT}, {_SUMS}, '
            f'PRIMARY KEY ("by", {span}, name))'
        )
    op.execute(
        "CREATE TABLE replica (replica text PRIMARY KEY, host text NOT NULL, release text NOT NULL, "
        "seen timestamptz NOT NULL, waiting bigint NOT NULL)"
    )


def downgrade() -> None:
    """To nothing."""
    for table in ("entry", "price_snapshot", "spend_hour", "spend_day", "replica"):
        op.execute(f"DROP TABLE {table}")
