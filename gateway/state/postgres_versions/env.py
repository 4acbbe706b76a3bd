"""What Alembic runs: the versions, on the connection that it was handed, in the transaction that is open there."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
