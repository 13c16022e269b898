"""The port to the database engine: what the writer asks of it, whichever it is.

An engine has transactions, knows what its errors mean, and looks after its own files. It must not know commands or handlers;
the writer must not know its driver.
"""

from __future__ import annotations

from typing import Protocol

from service.db.transaction import Tx


class EngineTx(Tx, Protocol):
    """A transaction as the writer has it; handlers see the `Tx` in it."""

    async def commit(self) -> None:
        """Send the rest, and make everything durable.

        Raises:
            GuardFailed: A write did not change the rows that it must change; nothing was committed.
            StoreFailed: It was committed, but will not be found where it is looked for.
        """

    async def rollback(self) -> None:
        """Undo everything, unless it was committed after all; the engine may have undone it by itself.

        Raises:
            StoreFailed: Not even that is possible.
        """

    def committed(self) -> None:
        """Run what waited for the commit."""


class Engine(Protocol):
    """Where the writer writes."""

    @property
    def alone(self) -> bool:
        """Whether no other process works on this database, so that every lease from before this one began is void."""

    def begin(self, now_ms: int) -> EngineTx:
        """A transaction of a batch; the engine begins it when something is sent."""

    def translate(self, error: BaseException) -> BaseException:
        """What an error means.

        Returns:
            StoreUnavailable: The engine is not able now.
            StoreFailed: It can no longer be trusted.
            The error itself, where it is not the engine's, or belongs to a statement.
        """

    async def empty_log(self) -> bool:
        """Take what was erased out of the engine's log; False: not now.

        Raises:
            StoreUnavailable: It cannot be done; what was committed is not touched.
            StoreFailed: The engine can no longer be trusted.
        """

    def check(self) -> None:
        """See whether what is written is where it will be looked for.

        Raises:
            StoreFailed: It is not.
        """

    async def close(self) -> None:
        """Let go of the database."""
