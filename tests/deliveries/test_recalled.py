"""Events that were erased are remembered for as long as anybody can hold them."""

from __future__ import annotations

from service.deliveries.retention.recalled import Recalled


def test_erased_event_is_remembered_for_a_lease() -> None:
    """Up to its end; afterwards the next one that is erased finds it gone."""
    recalled = Recalled(lease_ms=1000)
    recalled.add(["evt_a", "evt_b"], 0)
    recalled.add(["evt_c"], 1000)
    during = ["evt_a" in recalled, "evt_b" in recalled, "evt_x" in recalled]
    recalled.add(["evt_d"], 1001)

    assert during == [True, True, False]
    assert ["evt_a" in recalled, "evt_c" in recalled, "evt_d" in recalled] == [False, True, True]
    assert len(recalled) == 2
