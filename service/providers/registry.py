"""The providers of this process: the cards that ship with Remora and the operator's own, bound to the settings.

Owns which cards exist and what is in force where a setting and a card both say something. It must not know jobs.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final, Literal, Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

from service import notation
from service.clock import Clock
from service.errors import AdapterFailed, CardInvalid, FieldError, SettingsInvalid
from service.providers import guard
from service.providers.adapters import Adapter, Adapters
from service.providers.card.card import Card, Operation
from service.providers.card.input_check import InputCheck
from service.providers.card.loading import load_card, locate
from service.providers.card.timing import OperationTiming, seconds, timing_of
from service.providers.client import (
    CancelOutcome,
    CancelVerdict,
    Dialect,
    Outbound,
    PollOutcome,
    PollVerdict,
    SubmitOutcome,
    Verdict,
)
from service.providers.dialect.card_dialect import CardDialect
from service.providers.drawing import DrawingDialect
from service.providers.limiter import Limiter
from service.providers.mapping import NOTHING, Money, Observation
from service.providers.quote import PriceList, Quote
from service.providers.signatures import Judged
from service.providers.verifiers import KeyRing, Verifiers
from service.settings import PRICE_CEILING, ProviderSettings, provider_variable
from service.states import ErrorCode

#: What a card can name as its `adapter` to speak in its place.
DIALECTS: Final[Mapping[str, Callable[[Clock], Dialect]]] = {"drawing": DrawingDialect}
POLLS_AT_ONCE: Final = 100  # for one provider, those that verify callbacks included
LONGEST_POLL_PAUSE_S: Final = 300.0  # for which a provider can put off all polls with one Retry-After
_Outcome = TypeVar("_Outcome", SubmitOutcome, PollOutcome, CancelOutcome)


class Provider:
    """A card bound to its settings and to the way out.

    The times that are attributes hold for all operations: the longest of the waits, the shortest of the spacings;
    `timing` has those of one operation.

    Args:
        ring: Where the public keys of providers are; None: callbacks that need them are hints.
        adapters: Where the card's adapter is, if it names one; None: among the installed ones.
        dialects: What speaks in the card's place, inside this process, if the card names it.
        price_ceiling: What is held for a price that only the completion tells, where the settings of the provider have no
            other, in micro-USD.
    """

    def __init__(
        self,
        card: Card,
        settings: ProviderSettings,
        egress: Outbound,
        clock: Clock,
        *,
        ring: KeyRing | None = None,
        adapters: Adapters | None = None,
        dialects: Mapping[str, Callable[[Clock], Dialect]] = DIALECTS,
        price_ceiling: int = PRICE_CEILING,
    ) -> None:
        secret = settings.api_key.get_secret_value() if settings.api_key else None
        self.card = card
        self.name = card.name
        self.reason = _why_not_configured(card, secret)
        self.configured = self.reason is None
        self.default_operation = card.default_operation
        self.verify: Literal["fetch", "trust"] = settings.verify or _verify(card)
        self.max_in_flight = settings.max_in_flight or card.limits.in_flight
        self.max_submits = settings.max_submits or card.limits.submits
        submit_rate = settings.submit_rate or card.limits.submit_rate
        self.submits = Limiter(clock, at_once=self.max_submits, rate=submit_rate)
        self.polls = Limiter(
            clock, at_once=POLLS_AT_ONCE, rate=card.limits.poll_rate, longest_pause_s=LONGEST_POLL_PAUSE_S
        )
        self.retention_s = seconds(card.limits.retention)
        self._callbacks_off = settings.callbacks == "off"
        self._checks = {name: InputCheck(operation) for name, operation in card.operations.items()}
        ceiling = settings.price_ceiling or price_ceiling
        self._prices = {name: PriceList(operation, ceiling) for name, operation in card.operations.items()}
        self._clock = clock
        in_process = dialects.get(card.adapter or "")
        self._in_process = in_process is not None
        adapter = None if in_process else _adapter(card, adapters)
        self._dialect = in_process(clock) if in_process else _over_http(card, settings, egress, clock, adapter)
        self._verifiers = Verifiers(card, settings, self.verify, clock, ring=ring, adapter=adapter)
        self._timings = {name: timing_of(operation, settings) for name, operation in card.operations.items()}
        timings = self._timings.values()
        self.submit_timeout_s = max(timing.submit_timeout_s for timing in timings)
        self.poll_timeout_s = max(timing.poll_timeout_s for timing in timings)
        self.fallback_after_s = max(timing.fallback_after_s for timing in timings)
        spacings = [timing.poll_every_s for name, timing in self._timings.items() if self.can_poll(name)]
        self.poll_every_s = min(spacings, default=0.0)
        self.not_found_grace_s = max(timing.not_found_grace_s for timing in timings)
        self.typical_s = max(timing.typical_s for timing in timings)
        overdue = [timing.overdue_after_s for timing in timings if timing.overdue_after_s is not None]
        self.overdue_after_s = max(overdue, default=None)

    def operation(self, name: str) -> Operation | None:
        """The operation of that name, if the card has it."""
        return self.card.operations.get(name)

    def timing(self, operation: str) -> OperationTiming:
        """The times of one operation."""
        return self._timings[operation]

    def validate(self, operation: str, given: Mapping[str, object]) -> list[FieldError]:
        """What is wrong with an input; empty when it can be submitted."""
        return self._checks[operation].errors(given)

    def estimate(self, operation: str, given: Mapping[str, object]) -> Money | None:
        """What the price list says that an input will cost; None where it says nothing."""
        return self.quote(operation, given).estimate

    def quote(self, operation: str, given: Mapping[str, object]) -> Quote:
        """What is known of the price of a valid input, and what is held for it."""
        return self._prices[operation].quote(given)

    def price_ceiling(self, operation: str) -> int | None:
        """What is held where only the completion tells the cost, in micro-USD; None: the card does not say so."""
        return self._prices[operation].ceiling

    def wants_callback(self, operation: str) -> bool:
        """Whether a submission should carry a callback URL."""
        return self.card.operations[operation].callback is not None and not self._callbacks_off

    def can_poll(self, operation: str) -> bool:
        """Whether the provider can be asked for a task."""
        return self.card.operations[operation].poll is not None

    async def submit(self, operation: str, given: Mapping[str, object], callback_url: str | None) -> SubmitOutcome:
        """Hand a task in; never raises for anything that the provider does."""
        if self.reason is not None:
            return SubmitOutcome(Verdict.NOT_SENT, None, ErrorCode.PROVIDER_AUTH, self.reason)
        url = callback_url if self.wants_callback(operation) else None
        submitting = self._submit(operation, given, url)
        if url is None or not self._verifiers.wants_keys(operation):
            return await submitting
        # The keys are there before the callback is: they are fetched while the provider takes the task.
        outcome, _ = await asyncio.gather(submitting, self._verifiers.refresh(operation))
        return outcome

    async def _submit(self, operation: str, given: Mapping[str, object], url: str | None) -> SubmitOutcome:
        """What fails in this process before anything left has failed for good; later a task may have been taken."""
        try:
            return await self._outcome(SubmitOutcome, self._dialect.submit, operation, given, url)
        except AdapterFailed as error:
            if self._in_process:
                return SubmitOutcome(Verdict.REJECTED, None, ErrorCode.INTERNAL, str(error))
            message = f"the answer could not be read, so the task may have been taken: {error}"
            return SubmitOutcome(Verdict.UNKNOWN, None, ErrorCode.SUBMIT_UNKNOWN, message, cause="adapter_failed")

    async def _outcome(
        self, kind: type[_Outcome], speak: Callable[..., Awaitable[_Outcome]], operation: str, *given: object
    ) -> _Outcome:
        """What the dialect gives; raises `AdapterFailed` for anything else that comes of it."""
        step = guard.Step(self.name, operation, speak.__name__)

        async def work() -> _Outcome:
            return await speak(operation, *given)

        if not self._in_process:  # egress keeps the deadlines, and what answers mean is our own code
            return await guard.wait(step, work())
        found = await guard.wait_until(step, work(), self.timing(operation).submit_timeout_s, self._clock)
        return guard.checked(step, found, kind)

    async def poll(self, operation: str, task_id: str, poll_url: str | None) -> PollOutcome:
        """Ask for a task; never raises for anything that the provider does."""
        if self.reason is not None:
            return PollOutcome(PollVerdict.DENIED, message=self.reason)
        if self._verifiers.wants_keys(operation):
            await self._verifiers.refresh(operation)
        try:
            return await self._outcome(PollOutcome, self._dialect.poll, operation, task_id, poll_url)
        except AdapterFailed as error:
            return PollOutcome(PollVerdict.RETRY, message=str(error))

    def can_cancel(self, operation: str) -> bool:
        """Whether the provider can be asked to cancel a task."""
        return self.card.operations[operation].cancel is not None

    async def cancel(self, operation: str, task_id: str, cancel_url: str | None = None) -> CancelOutcome:
        """Ask the provider to cancel a task; never raises for anything that the provider does."""
        reason = self.reason or (None if self.can_cancel(operation) else f"{self.name} cannot cancel {operation}")
        if reason is not None:
            return CancelOutcome(CancelVerdict.DENIED, message=reason)
        try:
            return await self._outcome(CancelOutcome, self._dialect.cancel, operation, task_id, cancel_url)
        except AdapterFailed as error:
            return CancelOutcome(CancelVerdict.RETRY, message=str(error))

    def read_callback(self, operation: str, body: bytes, headers: Mapping[str, str]) -> Observation:
        """What a callback says; never raises, garbled is an observation that has seen nothing."""
        step = guard.Step(self.name, operation, "read_callback")
        try:
            found = guard.run(step, self._dialect.read_callback, operation, body, headers)
            return guard.checked(step, found, Observation) if self._in_process else found
        except AdapterFailed:
            return NOTHING

    def verify_callback(self, operation: str, body: bytes, headers: Mapping[str, str], *, url: str = "") -> Judged:
        """Who sent a callback, as far as that can be told; never raises, and asks nobody.

        Args:
            operation: Of the submission that the callback's token names.
            body: As it came, whole: a signature does not fit a part of it.
            headers: Of the request.
            url: What the provider asked for, with the query, for cards that need it.
        """
        step = guard.Step(self.name, operation, "verify_callback")
        try:
            return guard.run(step, self._verifiers.verify, operation, body, headers, url)
        except AdapterFailed as error:
            return Judged(None, False, str(error))


class Registry:
    """All providers by name."""

    def __init__(self, providers: Iterable[Provider]) -> None:
        self._providers = {provider.name: provider for provider in providers}

    @classmethod
    def load(
        cls,
        settings: Mapping[str, ProviderSettings],
        cards_dir: Path | None,
        egress: Outbound,
        clock: Clock,
        *,
        price_ceiling: int = PRICE_CEILING,
    ) -> Self:
        """Read all cards and bind them; a card of the operator's replaces the built-in one of the same name.

        Args:
            settings: What the operator says, by the card's name.
            cards_dir: Where the operator's own cards lie, `*.yaml`.
            egress: The way out.
            clock: The time.
            price_ceiling: See `Provider`.

        Raises:
            CardInvalid: With a line for everything that is wrong with any card.
            SettingsInvalid: The settings name a card that does not exist, or a secret that its scheme cannot use.
        """
        cards = {card.name: card for card in itertools.chain(_shipped(), _read(_own(cards_dir)))}
        unknown = sorted(set(settings) - set(cards))
        if unknown:
            raise SettingsInvalid([_no_such_card(name, cards) for name in unknown])
        ring, problems, providers = KeyRing(egress, clock), list[str](), list[Provider]()
        for name, card in cards.items():
            try:
                given = settings.get(name, ProviderSettings())
                providers.append(Provider(card, given, egress, clock, ring=ring, price_ceiling=price_ceiling))
            except SettingsInvalid as error:
                problems += error.problems
        if problems:
            raise SettingsInvalid(problems)
        return cls(providers)

    def get(self, name: str) -> Provider | None:
        """The provider of that name."""
        return self._providers.get(name)

    def all(self) -> list[Provider]:
        """All providers by name, configured or not."""
        return [self._providers[name] for name in sorted(self._providers)]


def read_card(text: str, name: str, adapters: Adapters | None = None, *, shipped: bool = False) -> Card:
    """The card in a YAML text, with the adapters that this process knows; takes and raises as `load_card`."""
    known = adapters or Adapters.installed()
    card = load_card(text, name, DIALECTS, known.names, shipped=shipped)
    if card.adapter is not None and card.adapter not in DIALECTS:
        try:
            known.load(card.adapter)
        except AdapterFailed as error:
            line, field = locate(text, ("adapter",))
            raise CardInvalid(f"{name}:{line}: {field}: {error}") from error
    return card


@functools.cache
def _shipped() -> tuple[Card, ...]:
    """The cards that ship with Remora, read once: they stay what they are while a process lives."""
    return tuple(_read(_built_in(), shipped=True))


def _built_in() -> Iterator[tuple[str, Traversable]]:
    for file in (resources.files("service.providers") / "cards").iterdir():
        if file.name.endswith(".yaml"):
            yield file.name, file


def _own(cards_dir: Path | None) -> Iterator[tuple[str, Traversable]]:
    if cards_dir is None:
        return
    try:
        paths = sorted(path for path in cards_dir.iterdir() if path.suffix in {".yaml", ".yml"})
    except OSError as error:
        raise CardInvalid(f"{cards_dir}: REMORA_CARDS_DIR cannot be read: {error.strerror}") from error
    yield from ((str(path), path) for path in paths)


def _read(files: Iterable[tuple[str, Traversable]], *, shipped: bool = False) -> list[Card]:
    """All cards of one place, or everything that is wrong with them."""
    cards: dict[str, tuple[str, Card]] = {}
    problems: list[str] = []
    for name, file in files:
        try:
            text = file.read_text("utf-8")
            card = read_card(text, name, shipped=shipped)
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"{name}:1: card: cannot be read as UTF-8 text ({type(error).__name__})")
            continue
        except CardInvalid as error:
            problems.append(str(error))
            continue
        if card.name in cards:
            line = next((n for n, start in enumerate(text.splitlines(), 1) if start.startswith("name:")), 1)
            problems.append(f"{name}:{line}: name: {cards[card.name][0]} has the name {card.name!r} already")
        cards[card.name] = (name, card)
    if problems:
        raise CardInvalid("\n".join(problems))
    return [card for _, card in cards.values()]


def _no_such_card(name: str, cards: Mapping[str, Card]) -> str:
    variable = provider_variable(name, "").removesuffix("__")
    hint = notation.did_you_mean(name, cards)
    return f"{variable}__…: there is no card {name!r}{hint}; known: {', '.join(sorted(cards))}"


def _why_not_configured(card: Card, secret: str | None) -> str | None:
    if card.auth is None or secret is not None:
        return None
    return f"{provider_variable(card.name, 'API_KEY')} is not set: put your key at {card.title or card.name} there"


def _verify(card: Card) -> Literal["fetch", "trust"]:
    """What the card says of its callbacks; one operation that needs a fetch is enough for all."""
    said = {operation.callback.verify for operation in card.operations.values() if operation.callback}
    return "trust" if said == {"trust"} else "fetch"


def _adapter(card: Card, adapters: Adapters | None) -> Adapter | None:
    return None if card.adapter is None else (adapters or Adapters.installed()).load(card.adapter, card.name)


def _over_http(
    card: Card,
    settings: ProviderSettings,
    egress: Outbound,
    clock: Clock,
    adapter: Adapter | None,
) -> Dialect:
    base_url = _base_url(card.base_url or "", settings.base_url)
    secret = settings.api_key.get_secret_value() if settings.api_key else None
    webhook_secrets = [each.get_secret_value() for each in settings.webhook_secrets]
    return CardDialect(card, base_url, secret, egress, clock, webhook_secrets=webhook_secrets, adapter=adapter)


def _base_url(of_card: str, of_settings: str | None) -> str:
    """The card's base URL with the setting's scheme, host and port: a path that the card has there stays."""
    if of_settings is None:
        return of_card
    origin = urlsplit(of_settings)
    return urlunsplit((origin.scheme, origin.netloc, urlsplit(of_card).path, "", "")).rstrip("/")
