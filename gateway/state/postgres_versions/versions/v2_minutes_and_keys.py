"""What Endpoints did, as each replica saw it, and the client keys that a fleet shares."""

from alembic import op

revision = "2"
down_revision = "1"

_COUNTS = ", ".join(
    f"{name} bigint NOT NULL"
    for name in (
        *("ok", "fail_connect", "fail_server", "fail_timeout", "fail_mid", "rate_limited", "client_err", "cancelled"),
        *("geo", "probe_ok", "probe_fail", "tok_in", "tok_out", "cost_nano"),
    )
)


def upgrade() -> None:
    """From version 1."""
    op.execute(
        f'CREATE TABLE endpoint_minute (replica text NOT NULL, endpoint_id text COLLATE "C" NOT NULL, '
        f"minute bigint NOT NULL, {_COUNTS}, ttft_hist bytea NOT NULL, PRIMARY KEY (replica, endpoint_id, minute))"
    )
    op.execute("CREATE INDEX endpoint_minute_time ON endpoint_minute (minute)")
    op.execute(
        "CREATE TABLE client_key (id text PRIMARY KEY, name text NOT NULL, digest bytea NOT NULL, "
        "previous_digest bytea NOT NULL, previous_until_us bigint NOT NULL, created_us bigint NOT NULL, "
        "updated_us bigint NOT NULL, expires_us bigint, disabled bigint NOT NULL, deleted_us bigint, parent text, "
        "limits text NOT NULL, revision bigint NOT NULL)"
    )
    op.execute("CREATE SEQUENCE client_key_revision")
    op.execute("CREATE INDEX client_key_changes ON client_key (revision)")
    op.execute("CREATE TABLE fleet (name text PRIMARY KEY, value text NOT NULL)")


def downgrade() -> None:
    """To version 1. Every replica still has its minutes and its keys, and sends them again to a version 2."""
    op.execute("DROP TABLE endpoint_minute, client_key, fleet")
    op.execute("DROP SEQUENCE client_key_revision")
