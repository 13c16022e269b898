"""Reading the provider cards for a command that shows or checks them, without a running service.

Owns one function. Nothing here reaches a provider: the way out is never opened.
"""

from __future__ import annotations

from service.clock import SystemClock
from service.egress.door import Door
from service.providers.registry import Provider, Registry
from service.settings import Settings


def read_providers(settings: Settings) -> list[Provider]:
    """All providers as these settings configure them.

    Raises:
        CardInvalid: A card is wrong.
        SettingsInvalid: The settings name a card that does not exist.
    """
    clock = SystemClock()
    return Registry.load(settings.providers, settings.cards_dir, Door(allow=(), clock=clock), clock).all()
