"""What one observation costs: a document's bytes decoded and read by the card, on one core, for every built-in card.

Run: python benchmarks/mapping.py. Aim: under 50 µs an observation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import msgspec

from service.clock import SystemClock
from service.egress import Answer, Call
from service.providers.card.example import plain
from service.providers.registry import Provider, Registry

ROUNDS = 5_000
AIM_US = 50.0


class NoWayOut:
    """Nothing is asked here."""

    async def call(self, call: Call, *, timeout_s: float, read_bytes: int, fresh: bool = False) -> Answer:
        raise NotImplementedError


def microseconds(work: Callable[[], object]) -> float:
    """The best of five runs, per call, in processor time: other work on the machine is not counted."""
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        for _ in range(ROUNDS // 5):
            work()
        best = min(best, time.process_time() - began)
    return best / (ROUNDS // 5) * 1e6


def documents(provider: Provider) -> Iterator[tuple[str, str, bytes]]:
    """Operation, name and bytes of every document of a task among the card's own examples."""
    for example in provider.card.examples:
        if example.poll is not None and example.poll.answer.status == 200 and example.poll.answer.body is not None:
            yield example.operation, example.name, msgspec.json.encode(plain(example.poll.answer.body))
        elif example.callback is not None and example.callback.body is not None:
            yield example.operation, example.name, msgspec.json.encode(plain(example.callback.body))


def main() -> None:
    worst_us = 0.0
    for provider in Registry.load({}, None, NoWayOut(), SystemClock()).all():
        for operation, name, body in documents(provider):
            cost_us = microseconds(lambda each=provider, op=operation, raw=body: each.read_callback(op, raw, {}))  # type: ignore[misc]
            worst_us = max(worst_us, cost_us)
            print(f"{provider.name:12} {name[:44]:44} {cost_us:6.1f} µs")
        for example in provider.card.examples:
            if example.submit is not None and example.input and not example.invalid:
                cost_us = microseconds(lambda each=provider, of=example: each.validate(of.operation, of.input))  # type: ignore[misc]
                print(f"{provider.name:12} {'input checked: ' + example.name[:29]:44} {cost_us:6.1f} µs")
    print(f"the dearest observation: {worst_us:.1f} µs ({'within' if worst_us < AIM_US else 'OVER'} {AIM_US:.0f} µs)")


if __name__ == "__main__":
    main()
