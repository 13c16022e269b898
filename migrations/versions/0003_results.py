"""Our copies of results: where they lie, what they are, when they go."""

from __future__ import annotations

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema forward; migrations only add."""
