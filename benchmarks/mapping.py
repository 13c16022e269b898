"""What one observation costs: a callback's bytes decoded and read by the card, on one core.

Run: python benchmarks/mapping.py. Aim: under 50 µs an observation.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from service.clock import SystemClock
from service.egress import Answer, Call
from service.providers.registry import Provider, Registry

ROUNDS = 20_000
AIM_US = 50.0

#: apimodels-sparkpix.txt, "Success Response", "Failed Response", "Create Task Response".
COMPLETED = b"""{"code": 200, "msg": "success", "data": {"taskId": "clxxx...", "state": "completed",
"resultUrls": ["https://r2.apimodels.app/images/xxx.jpeg"], "createTime": 1705123450000, "completeTime": 1705123465000}}"""
FAILED = b"""{"code": 200, "msg": "success", "data": {"taskId": "clxxx...", "state": "failed",
"failMsg": "Content policy violation"}}"""
PENDING = b'{"code": 200, "msg": "success", "data": {"taskId": "clxxx...", "state": "pending"}}'
INPUT = {"model": "sparkpix", "prompt": "A cute cat wearing a space helmet", "aspect_ratio": "16:9"}


class NoWayOut:
    """Nothing is asked here."""

    async def call(self, call: Call, *, timeout_s: float, read_bytes: int, fresh: bool = False) -> Answer:
        raise NotImplementedError


def microseconds(work: Callable[[], object]) -> float:
    """The best of five runs, per call."""
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(ROUNDS // 5):
            work()
        best = min(best, time.perf_counter() - began)
    return best / (ROUNDS // 5) * 1e6


def main() -> None:
    provider = Registry.load({}, None, NoWayOut(), SystemClock()).get("apimodels")
    if not isinstance(provider, Provider):
        raise SystemExit("the card is gone")
    for name, body in (("pending", PENDING), ("completed", COMPLETED), ("failed", FAILED)):
        cost_us = microseconds(lambda body=body: provider.read_callback("generate", body, {}))  # type: ignore[misc]
        print(f"observation, {name:9} {cost_us:6.1f} µs  ({'within' if cost_us < AIM_US else 'OVER'} {AIM_US:.0f} µs)")
    print(f"input checked          {microseconds(lambda: provider.validate('generate', INPUT)):6.1f} µs")


if __name__ == "__main__":
    main()
