"""The books: balances, budgets and every transfer of money."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# Jobs that were taken before have no hold: the books begin here, and whoever compares them with the jobs must know.
_BOOKS_BEGIN = """
INSERT INTO meta (key, value)
SELECT 'books_since', CAST(CAST(coalesce(max(created_at), 0) AS TEXT) AS BLOB) FROM jobs
"""


def upgrade() -> None:
    """Bring the schema forward; migrations only add."""
    op.create_table(
        "transfers",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=True),
        sa.Column("seq", sa.Integer(), nullable=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("debit", sa.String(), nullable=False),
        sa.Column("credit", sa.String(), nullable=False),
        sa.Column("amount", sa.Integer(), nullable=False),
        sa.Column("at", sa.Integer(), nullable=False),
        sa.Column("basis", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("actor", sa.String(), nullable=True),
        sa.Column("key", sa.String(), nullable=True),
        sa.CheckConstraint("(kind IN ('credit', 'debit')) = (job_id IS NULL)", name="ck_transfers_job"),
        sa.CheckConstraint("amount > 0", name="ck_transfers_amount"),
        sa.CheckConstraint(
            "kind || ':' || debit || ':' || credit IN ('credit:funding:available', 'debit:available:funding', "
            "'hold:available:held', 'release:held:available', 'charge:held:spent', 'excess:available:spent', "
            "'late:available:spent')",
            name="ck_transfers_move",
        ),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["accounts.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_transfers_for_account", "transfers", ["account_id", "id"], unique=False)
    op.create_index(
        "ix_transfers_for_job", "transfers", ["job_id", "kind"], unique=True, sqlite_where=sa.text("job_id IS NOT NULL")
    )
    op.create_index(
        "ix_transfers_for_key", "transfers", ["account_id", "key"], unique=True, sqlite_where=sa.text("key IS NOT NULL")
    )
    for name in ("balance", "held", "month", "month_spent"):
        op.add_column("accounts", sa.Column(name, sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("accounts", sa.Column("budget", sa.Integer(), nullable=True))
    op.add_column("jobs", sa.Column("cost_held", sa.Integer(), nullable=True))
    op.execute(_BOOKS_BEGIN)
