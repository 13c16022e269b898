"""Deadlines that pass."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from service.scheduler.expirer import Expirer
from tests.api.conftest import serve


async def test_job_that_cannot_be_ended_keeps_no_other(tmp_path: Path) -> None:
    """All others end in the same sweep, however many there are; the failure is told behind them."""
    async with serve(tmp_path) as served:
        jobs = [await served.take() for _ in range(7)]
        with contextlib.closing(sqlite3.connect(tmp_path / "remora.db")) as connection:
            connection.execute(
                "CREATE TRIGGER stuck BEFORE UPDATE OF status ON jobs WHEN old.seq = 1 AND old.id = "
                f"'{jobs[0]['id']}' BEGIN SELECT RAISE(ABORT, 'stuck'); END"
            )
        base = served.service._base
        await served.sql("UPDATE jobs SET expires_at = created_at - 1")
        with pytest.raises(sqlite3.IntegrityError, match="stuck"):
            await Expirer(base.store.writer, base.store.reader, base.clock, batch=3).run_once()
        left = await served.rows("SELECT id FROM jobs WHERE status <> 'expired'")

    assert left == [{"id": jobs[0]["id"]}]
