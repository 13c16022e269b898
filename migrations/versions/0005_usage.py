"""Usage by day, and the verdict of moderation."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# Counting follows `events.pos`. Whatever takes an event's position away before it was counted (retention, erasing a job)
# thereby has the job counted anew, and need not know of counting.
_KEEP_UNCOUNTED = """
CREATE TRIGGER events_usage_uncounted AFTER UPDATE OF pos ON events
WHEN NEW.pos IS NULL AND OLD.pos > (SELECT pos FROM usage_progress) AND NEW.job_id IS NOT NULL
BEGIN
    INSERT INTO usage_recounts (account_id, job_id) VALUES (NEW.account_id, NEW.job_id);
END
"""
_NAME_MODELS = """
UPDATE jobs SET model = substr(json_extract(input, '$.model'), 1, 100)
WHERE json_valid(input) AND json_type(input, '$.model') = 'text' AND json_extract(input, '$.model') <> ''
"""
# Counting follows the feed, in which what is older than its events are kept, or was erased, stands no more.
_COUNT_WHAT_LEFT_THE_FEED = """
INSERT INTO usage_recounts (account_id, job_id)
SELECT account_id, id FROM jobs WHERE finished_at IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM events e WHERE e.job_id = jobs.id AND e.pos IS NOT NULL
        AND e.type IN ('job.completed', 'job.failed', 'job.cancelled', 'job.expired')
)
"""


def upgrade() -> None:
    """Bring the schema forward; migrations only add."""
    op.add_column("jobs", sa.Column("model", sa.String(), nullable=True))
    op.add_column("jobs", sa.Column("moderation", sa.Text(), nullable=True))
    op.create_table(
        "usage_daily",
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("day", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("tag", sa.String(), nullable=False),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("operation", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("counts", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "day", "tag", "provider", "operation", "model", "key_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "usage_counted",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("charged", sa.Integer(), nullable=False),
        sa.Column("duration_ms", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("job_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "usage_recounts",
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("n"),
    )
    op.create_table(
        "usage_progress",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("pos", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.execute("INSERT INTO usage_progress (id, pos) VALUES (1, 0)")
    op.execute(_KEEP_UNCOUNTED)
    op.execute(_NAME_MODELS)
    op.execute(_COUNT_WHAT_LEFT_THE_FEED)
