"""Leases, held against a model: whoever is late changes nothing, and no row has two holders."""

from __future__ import annotations

import ast
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from service.db.leases import LAPSED, RELEASED, STILL_HELD, VOID, Leased, free
from service.db.sqlite.sqlite_engine import SQLiteEngine
from service.db.sqlite.sqlite_tx import SQLiteTx
from tests.generated import ROOT

T = TypeVar("T")

CREATE = """
CREATE TABLE work (id INTEGER, part INTEGER, done INTEGER DEFAULT 0, lease_owner TEXT, lease_until INTEGER,
    lease_epoch INTEGER DEFAULT 0, PRIMARY KEY (id, part))
"""
WORK = Leased("work", ("id", "part"), "done = 0")
LEASE_MS = 10
ROWS = 3


class Connection(SQLiteEngine):
    """A writing connection to a table in memory."""

    last_pos = 0

    def __init__(self) -> None:
        self.raw = sqlite3.connect(":memory:", isolation_level=None)
        self.raw.row_factory = sqlite3.Row
        self.raw.execute(CREATE)
        self.raw.executemany("INSERT INTO work (id, part) VALUES (1, ?)", [(part,) for part in range(ROWS)])

    async def on_thread(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run it here."""
        return work(self.raw)

    def check(self) -> None:
        """It is there."""

    async def close(self) -> None:
        """Close it."""
        self.raw.close()


async def _claim(connection: Connection, owner: str, now: int, count: int) -> dict[int, int]:
    """Claim what is free; the epoch of each part from then on."""
    tx = SQLiteTx(connection, now)
    found = await tx.rows(f"SELECT * FROM work WHERE done = 0 AND {free()} LIMIT :count", {"now": now, "count": count})
    until = WORK.claim(tx, found, owner, LEASE_MS)
    await tx.commit()

    assert until == now + LEASE_MS
    return {row["part"]: row["lease_epoch"] + 1 for row in found}


async def _write(connection: Connection, now: int, sql: str, **params: object) -> int:
    tx = SQLiteTx(connection, now)
    tx.write(sql, [{"now": now, **params}])
    await tx.commit()
    return int(connection.raw.execute("SELECT changes()").fetchone()[0])


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["claim", "finish", "release", "rescue", "void"]), st.sampled_from("ab"), st.integers(0, 8)
    ),
    max_size=30,
)


@given(STEPS)
@settings(max_examples=300, deadline=None)
async def test_late_holder_changes_nothing(steps: list[tuple[str, str, int]]) -> None:
    """Two owners claim, finish, are late, and lose what they have: a write counts only while the claim does."""
    connection, now = Connection(), 0
    holder: dict[int, tuple[str, int, int]] = {}  # by part: whose, which epoch, until when
    claims: dict[str, dict[int, int]] = {"a": {}, "b": {}}  # what each owner believes to have
    done: set[int] = set()
    for step, owner, amount in steps:
        now += amount
        if step == "claim":
            got = await _claim(connection, owner, now, 1 + amount % 2)
            for part, epoch in got.items():
                assert part not in done
                assert part not in holder or holder[part][2] <= now
                holder[part] = (owner, epoch, now + LEASE_MS)
            claims[owner] |= got
        elif step in {"finish", "release"} and claims[owner]:
            part, epoch = claims[owner].popitem()
            holds = holder.get(part, ("", 0, 0))[:2] == (owner, epoch) and part not in done
            if step == "finish":
                sql = (
                    f"UPDATE work SET done = 1, {RELEASED} WHERE id = 1 AND part = :part AND done = 0 AND {STILL_HELD}"
                )
                assert await _write(connection, now, sql, part=part, epoch=epoch) == int(holds)
                done |= {part} if holds else set()
            else:
                tx = SQLiteTx(connection, now)
                WORK.release(tx, [{"id": 1, "part": part, "epoch": epoch}])
                await tx.commit()
            if holds:
                del holder[part]
        elif step in {"rescue", "void"}:
            condition = LAPSED if step == "rescue" else "lease_until IS NOT NULL"
            await _write(connection, now, f"UPDATE work SET {VOID} WHERE {condition}")
            holder = {part: held for part, held in holder.items() if step == "rescue" and held[2] > now}
    stored = connection.raw.execute("SELECT part, lease_owner, lease_until FROM work WHERE lease_owner IS NOT NULL")

    assert {part: (owner, until) for part, owner, until in stored} == {
        part: (owner, until) for part, (owner, _, until) in holder.items()
    }
    await connection.close()


def _lease_texts(root: Path) -> list[str]:
    """Modules outside `db.leases` whose statements change or test a lease in words of their own."""
    found = []
    for path in (root / "service").rglob("*.py"):
        if path.name == "leases.py":
            continue
        texts = [node.value for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Constant)]
        own = (
            "lease_epoch + 1",
            "lease_owner = NULL",
            "lease_until = NULL",
            "lease_epoch = :epoch",
            "lease_until <= :now",
        )
        if any(isinstance(text, str) and any(part in text for part in own) for text in texts):
            found.append(path.name)
    return found


def test_leases_are_written_once(tmp_path: Path) -> None:
    """Every statement takes its words from `db.leases`; one that has its own is seen."""
    planted = tmp_path / "service" / "planted.py"
    planted.parent.mkdir()
    planted.write_text('"""Planted."""\nSQL = "UPDATE jobs SET lease_epoch = lease_epoch + 1"\n', "utf-8")

    assert _lease_texts(ROOT) == []
    assert _lease_texts(tmp_path) == ["planted.py"]
