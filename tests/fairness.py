"""Whether claims are fair: one check over what was claimed, whatever it is that is claimed, and backlogs to try it on."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from hypothesis import strategies as st

#: Whose work each unit of a claim is, in order.
Claim = Sequence[str]

ACCOUNTS = st.integers(0, 9).map(lambda number: f"acc_{number}")
#: By account: how much is due, and how much is not due yet.
BACKLOGS = st.dictionaries(ACCOUNTS, st.tuples(st.integers(0, 12), st.integers(0, 3)), min_size=1)


def check_fair(due: Mapping[str, int], claims: Sequence[Claim], count: int) -> None:
    """All that is due was claimed once, nothing else was, and no account waited longer than a round.

    Args:
        due: How much of each account is due.
        claims: What was claimed, until nothing was left.
        count: How much each claim could take.
    """
    served = Counter(account for claim in claims for account in claim)
    waiting = Counter(due)
    turn = -(-len(due) // count)  # claims in which every account could be served once
    since = dict.fromkeys(due, 0)
    for claim in claims:
        assert len(claim) == min(count, waiting.total()), "nothing stays idle while something is due"
        waiting.subtract(claim)
        for account in due:
            since[account] = 0 if account in claim or not waiting[account] else since[account] + 1
            assert since[account] <= turn, f"{account} waits for more than a round"
    assert served == Counter(due), "each that is due once, and no other"


async def until_nothing(claim: Callable[[], Awaitable[Claim]]) -> list[Claim]:
    """Claim until nothing is due."""
    claims = []
    while taken := await claim():
        claims.append(taken)
    return claims


@contextmanager
def copied(template: Path) -> Iterator[Path]:
    """A store for one example."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(shutil.copy(template, Path(name) / "remora.db"))
