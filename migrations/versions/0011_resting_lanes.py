"""Lanes that rest: a destination that is left alone for a while is not looked at before."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema forward; migrations only add."""
    op.add_column("lanes", sa.Column("rests_until", sa.Integer(), nullable=True))
