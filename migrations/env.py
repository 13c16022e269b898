"""Alembic's entry: works on a connection that `service.db.migrate` hands over; there is no alembic.ini."""

from __future__ import annotations

from alembic import context

from service.db.tables import SQLModel

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=SQLModel.metadata, render_as_batch=True, compare_type=True)
with context.begin_transaction():
    context.run_migrations()
