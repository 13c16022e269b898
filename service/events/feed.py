"""The live end of the feed: who follows an account's log, and waking them when something was published.

Nobody has a buffer here: a follower holds its position and reads what lies behind it from the store, as fast as its client
takes it. Followers that are at the same place share the read. This file must not know HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from service.db.reader import Reader
from service.errors import TooManyRequests, Unavailable
from service.events.feed_queries import FeedFilter, FeedPage, read_page

MAX_FOLLOWERS: Final = 2_000  # of all accounts
MAX_PER_ACCOUNT: Final = 100  # streams that an account may have open
RETRY_AFTER_S: Final = 10  # told to those who have too many streams
PAGE_EVENTS: Final = 100  # that are read at once
PAGE_BYTES: Final = 32 * 1024  # likewise: this much a client that stops reading costs us, and its connection's buffer
SHARED_PAGES: Final = 8  # of an account that are kept for others at the same place

_Place = tuple[int, FeedFilter]


def _future() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


@dataclass(slots=True)
class _Channel:
    """The followers of one account."""

    followers: int = 0
    commits: int = 0
    changed: asyncio.Future[None] = field(default_factory=_future)
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)
    pages: dict[_Place, FeedPage] = field(default_factory=dict)
    pages_at: int = 0  # the commits after which these were read

    def wake(self) -> None:
        self.commits += 1
        self.changed.set_result(None)
        self.changed = _future()

    async def page(self, reader: Reader, account_id: str, after: int, wanted: FeedFilter) -> FeedPage:
        # One read of an account at a time: a hundred that are woken together wait for the first and take what it found,
        # and an account with many followers never holds all of the store's readers.
        async with self.reading:
            if self.pages_at != self.commits or len(self.pages) >= SHARED_PAGES:
                self.pages.clear()
                self.pages_at = self.commits
            found = self.pages.get((after, wanted))
            if found is None:
                commits = self.commits
                found = await read_page(reader, account_id, after, wanted, limit=PAGE_EVENTS, max_bytes=PAGE_BYTES)
                if commits == self.commits:  # else a follower that was woken since might take it for the present
                    self.pages[after, wanted] = found
            return found


@dataclass(slots=True, eq=False)
class Follower:
    """One reader at the live end: take `changed`, read, and wait for what was taken once a page is the last.

    `on_close` is called when the service stops, for a reader that may be held up by its client.
    """

    account_id: str
    _hub: Hub
    _channel: _Channel
    on_close: Callable[[], object] | None = None

    @property
    def changed(self) -> asyncio.Future[None]:
        """Done as soon as something is published after this was asked for, or when everybody has to go."""
        return self._channel.changed

    @property
    def must_go(self) -> bool:
        """Whether the service stops."""
        return self._hub.closed

    async def page(self, reader: Reader, after: int, wanted: FeedFilter) -> FeedPage:
        """The next events behind a position; everything that was committed before is seen."""
        return await self._channel.page(reader, self.account_id, after, wanted)


@dataclass(slots=True)
class Hub:
    """Knows the followers of this process."""

    limit: int = MAX_FOLLOWERS
    limit_per_account: int = MAX_PER_ACCOUNT
    closed: bool = False
    _channels: dict[str, _Channel] = field(default_factory=dict)
    _followers: set[Follower] = field(default_factory=set)

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._followers)

    def published(self, account_ids: Iterable[str]) -> None:
        """Events of these accounts are committed."""
        for account_id in account_ids:
            channel = self._channels.get(account_id)
            if channel is not None:
                channel.wake()

    @contextmanager
    def follow(self, account_id: str) -> Iterator[Follower]:
        """Be woken; what is committed from now on is heard of.

        Raises:
            TooManyRequests: There are too many followers already.
            Unavailable: The service stops.
        """
        if self.closed:
            raise Unavailable("the service is stopping; come back in a moment", retry_after_s=1)
        channel = self._channels.get(account_id)
        if self.count >= self.limit:
            raise _too_many(f"{self.limit} streams are open, all accounts together")
        if channel is not None and channel.followers >= self.limit_per_account:
            raise _too_many(f"{self.limit_per_account} streams of this account are open; close one")
        if channel is None:
            channel = self._channels[account_id] = _Channel()
        follower = Follower(account_id, self, channel)
        channel.followers += 1
        self._followers.add(follower)
        try:
            yield follower
        finally:
            self._followers.discard(follower)
            channel.followers -= 1
            if not channel.followers:
                del self._channels[account_id]

    def close(self) -> None:
        """Send everybody away, since the service stops."""
        self.closed = True
        self.published(list(self._channels))
        for follower in self._followers:
            if follower.on_close is not None:
                follower.on_close()


def _too_many(detail: str) -> TooManyRequests:
    return TooManyRequests(
        f"{detail}; or page through GET /v1/events", code="too_many_streams", retry_after_s=RETRY_AFTER_S
    )
