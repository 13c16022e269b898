"""Lanes by account, so that one account with many that are due delays no other's."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema forward; migrations only add."""
    op.create_index(
        "ix_lanes_for_turns",
        "lanes",
        ["account_id", "next_due_at"],
        sqlite_where=sa.text("next_due_at IS NOT NULL"),
    )
