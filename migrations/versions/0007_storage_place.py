"""In which storage a file lies, so that another setting is not taken for the file's end."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema forward; migrations only add."""
    op.add_column("results", sa.Column("storage_place", sa.String(), nullable=True))
    op.add_column("inputs", sa.Column("storage_place", sa.String(), nullable=True))
