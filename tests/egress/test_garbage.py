"""What a request leaves behind is gone at once."""

from __future__ import annotations

import pytest

from tests.egress.raw import opened, polite, serving
from tests.egress.test_door import WAYS, send
from tests.garbage import uncollected


@pytest.mark.parametrize("way", WAYS)
async def test_request_leaves_nothing_for_the_collector(way: str) -> None:
    """Neither a delivery nor a call; with httpx's own response each call left forty objects."""
    async with serving(polite) as server, opened() as door:
        await send(door, way, server.url)
        with uncollected("httpx", "aiohttp", "service") as garbage:
            for _ in range(5):
                await send(door, way, server.url)

            assert garbage() == []
