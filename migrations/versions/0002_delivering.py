"""What delivering needs: replays, the pull feed, timed attempts, v1a keys, and lists by status."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema forward; migrations only add."""
    op.create_table(
        "replays",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("subscription_id", sa.String(), nullable=False),
        sa.Column("since", sa.Integer(), nullable=False),
        sa.Column("until", sa.Integer(), nullable=False),
        sa.Column("types", sa.Text(), nullable=False),
        sa.Column("statuses", sa.Text(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("next_pos", sa.Integer(), nullable=False),
        sa.Column("last_pos", sa.Integer(), nullable=False),
        sa.Column("looked_at", sa.Integer(), nullable=False),
        sa.Column("queued", sa.Integer(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Integer(), nullable=False),
        sa.Column("finished_at", sa.Integer(), nullable=True),
        sa.Column("due_at", sa.Integer(), nullable=True),
        sa.Column("lease_owner", sa.String(), nullable=True),
        sa.Column("lease_until", sa.Integer(), nullable=True),
        sa.Column("lease_epoch", sa.Integer(), nullable=False),
        sa.CheckConstraint("(status = 'running') = (due_at IS NOT NULL)", name="ck_replays_wake_up"),
        sa.CheckConstraint("status IN ('running', 'done', 'cancelled')", name="ck_replays_status"),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["accounts.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "ix_replays_for_claim", "replays", ["due_at"], unique=False, sqlite_where=sa.text("status = 'running'")
    )
    op.create_index("ix_replays_for_list", "replays", ["account_id", "id"], unique=False)
    op.add_column("accounts", sa.Column("feed_floor", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("attempts", sa.Column("error_class", sa.String(), nullable=True))
    op.add_column("attempts", sa.Column("dns_ms", sa.Integer(), nullable=True))
    op.add_column("attempts", sa.Column("connect_ms", sa.Integer(), nullable=True))
    op.add_column("attempts", sa.Column("tls_ms", sa.Integer(), nullable=True))
    op.add_column("attempts", sa.Column("first_byte_ms", sa.Integer(), nullable=True))
    op.add_column("attempts", sa.Column("sent", sa.Text(), nullable=True))
    op.add_column("deliveries", sa.Column("reason", sa.String(), nullable=True))
    op.add_column("deliveries", sa.Column("retried_at", sa.Integer(), nullable=True))
    op.add_column("deliveries", sa.Column("attempted_at", sa.Integer(), nullable=True))
    op.add_column("deliveries", sa.Column("give_up_at", sa.Integer(), nullable=True))
    op.create_index("ix_deliveries_for_event", "deliveries", ["event_id"], unique=False)
    op.create_index(
        "ix_deliveries_for_list_by_status",
        "deliveries",
        ["account_id", "status", "id"],
        unique=False,
        sqlite_where=sa.text("status <> 'delivered'"),
    )
    op.create_index(
        "ix_events_for_account_feed",
        "events",
        ["account_id", "pos"],
        unique=False,
        sqlite_where=sa.text("pos IS NOT NULL"),
    )
    op.add_column("subscriptions", sa.Column("signing_key", sa.LargeBinary(), nullable=True))
    op.add_column("subscriptions", sa.Column("previous_signing_key", sa.LargeBinary(), nullable=True))
    op.add_column(
        "subscriptions", sa.Column("stop_at_expiry", sa.Integer(), server_default=sa.text("0"), nullable=False)
    )
    op.add_column("subscriptions", sa.Column("last_failure_at", sa.Integer(), nullable=True))
    op.create_index(
        "ix_subscriptions_for_disabling",
        "subscriptions",
        ["failing_since"],
        unique=False,
        sqlite_where=sa.text("failing_since IS NOT NULL"),
    )
