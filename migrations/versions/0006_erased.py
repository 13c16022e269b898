"""What erasing a job leaves in the feed: where its events were, so that whoever has seen them can read on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# It was kept for all accounts together before. An account's own may have been lower, and nothing says so any more; a
# position is never given twice with the higher one either.
_TAKE_OVER = """
UPDATE accounts SET feed_erased = (SELECT CAST(CAST(value AS TEXT) AS INTEGER) FROM meta WHERE key = 'feed_pos')
WHERE EXISTS (SELECT 1 FROM meta WHERE key = 'feed_pos')
"""


def upgrade() -> None:
    """Bring the schema forward; migrations only add."""
    op.add_column("events", sa.Column("erased_pos", sa.Integer(), nullable=True))
    op.add_column("accounts", sa.Column("feed_erased", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.execute(_TAKE_OVER)
    op.execute("DELETE FROM meta WHERE key = 'feed_pos'")
