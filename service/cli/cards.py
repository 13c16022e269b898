"""Reading the provider cards for a command that shows or checks them, without a running service.

Owns the questions that settings and cards answer together. Nothing here reaches a provider: only its name is looked up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from service.clock import SystemClock
from service.egress.door import Door
from service.errors import EgressRefused
from service.providers.registry import Provider, Registry
from service.settings import Settings

LOOK_UP_S: Final = 2.0  # nobody waits longer for a name; one that is not found in time is not judged


def read_providers(settings: Settings) -> list[Provider]:
    """All providers as these settings configure them.

    Raises:
        CardInvalid: A card is wrong.
        SettingsInvalid: The settings name a card that does not exist.
    """
    clock = SystemClock()
    door, ceiling = Door(allow=(), clock=clock), settings.price_ceiling
    return Registry.load(settings.providers, settings.cards_dir, door, clock, price_ceiling=ceiling).all()


async def refusals(settings: Settings, providers: Sequence[Provider]) -> dict[str, EgressRefused]:
    """Why our own gate will not let requests go to a configured provider, by its name; empty where all is well."""
    door = Door(allow=settings.egress_allow, clock=SystemClock())
    found: dict[str, EgressRefused] = {}

    async def judge(provider: Provider) -> None:
        given = settings.providers.get(provider.name)
        base_url = (given.base_url if given else None) or provider.card.base_url
        if not base_url or not provider.configured:
            return
        try:
            await door.check(base_url)
        except EgressRefused as refused:
            found[provider.name] = refused

    try:
        async with asyncio.timeout(LOOK_UP_S):
            await asyncio.gather(*map(judge, providers))
    except TimeoutError:
        return found
    finally:
        await door.close()
    return found
