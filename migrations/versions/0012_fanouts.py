"""The parts of a fan-out that are still to be written: an event for thousands of subscriptions is no single transaction."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema forward; migrations only add."""
    op.create_table(
        "fanouts",
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("subscription_ids", sa.Text(), nullable=False),
        sa.Column("results_expire_at", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("event_id", "place"),
        sa.ForeignKeyConstraint(["event_id"], ["events.id"], ondelete="CASCADE"),
    )
