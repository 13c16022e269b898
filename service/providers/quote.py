"""What an input will cost, as far as that is known before it is sent: its card's price list, put to use.

Pure. What is sent to the provider is what is priced: fields that the card adds count over the caller's, a field that is left
out counts as its default. It must not know accounts; who may go on without a price is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from service.errors import MAX_ERRORS, FieldError
from service.providers.card.card import Operation
from service.providers.card.input_check import MAX_NAMED, pointer, unnamed
from service.providers.card.price import MAX_COUNT, Price
from service.providers.mapping import Money

_MICRO: Final = 1_000_000
_NEEDED: Final = "which an account with a limit needs"


@dataclass(frozen=True, slots=True)
class Quote:
    """What is known of a job's price before it is sent.

    Args:
        estimate: What the price list says; None where it says nothing.
        hold: What is held until the job ends, in micro-USD.
        unpriced: Why the price cannot be relied on, at the fields that decide it: empty where it can be, and where a
            ceiling is held.
    """

    estimate: Money | None
    hold: int
    unpriced: tuple[FieldError, ...] = ()


class PriceList:
    """The prices of one operation.

    Args:
        ceiling: What is held where the card says that a price is unknown, in micro-USD.
    """

    def __init__(self, operation: Operation, ceiling: int) -> None:
        price = operation.price or Price()
        self._rows = [(row.where, int(row.usd * _MICRO)) for row in price.rows]
        self._per = price.per
        self._schema = operation.input
        fields: dict[str, Any] = self._schema.get("properties", {})
        deciding = dict.fromkeys(
            [*(name for where, _ in self._rows for name in where), *([price.per] if price.per else [])]
        )
        self._defaults = {name: fields[name]["default"] for name in deciding if "default" in fields[name]}
        self._sent = operation.submit.extra if operation.submit else {}
        self.ceiling = ceiling if price.unknown else None

    def quote(self, given: Mapping[str, object]) -> Quote:
        """What is known of the price of an input that the schema takes."""
        estimate = self._estimate({**self._defaults, **given, **self._sent})
        price = estimate.micro_usd if estimate else 0
        unpriced = tuple(islice(self._unpriced(given, estimate), MAX_ERRORS))
        if unpriced and self.ceiling is not None:
            return Quote(estimate, max(price, self.ceiling))
        return Quote(estimate, price, unpriced)

    def _estimate(self, sent: Mapping[str, object]) -> Money | None:
        count = sent.get(self._per, 1) if self._per else 1
        if type(count) is not int or not 0 < count <= MAX_COUNT:
            return None
        for where, micro_usd in self._rows:
            if all(sent.get(name) == wanted for name, wanted in where.items()):
                return Money(micro_usd * count, "price_list")
        return None

    def _unpriced(self, given: Mapping[str, object], estimate: Money | None) -> Iterator[FieldError]:
        """What keeps the price from being known: no row that fits, or fields that nobody has described."""
        if not self._rows:
            yield FieldError("/operation", f"has no known price, {_NEEDED}; an operator writes price into its card")
            return
        if estimate is None:
            yield from self._deciding()
        for where in unnamed(self._schema, given):
            yield FieldError(
                where, f"is not in the operation's schema, so that the price is not known, {_NEEDED}; leave it out"
            )

    def _deciding(self) -> Iterator[FieldError]:
        """The fields that choose a row, and what they may be."""
        names = dict.fromkeys(name for where, _ in self._rows for name in where)
        for name in names or ([self._per] if self._per else []):
            values = [str(where[name]) for where, _ in self._rows if name in where]
            known = f"; priced are {', '.join(dict.fromkeys(values[:MAX_NAMED]))}" if values else ""
            yield FieldError(pointer(name), f"has no known price as it is, {_NEEDED}{known}")
