"""The index of destinations finds what a look at each of them would find."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from service.subscriptions.matching import Index


@dataclass(frozen=True)
class One:
    """A destination with filters."""

    id: str
    events: frozenset[str]
    tags: frozenset[str]
    providers: frozenset[str]

    def wants(self, event_type: str, provider: str | None, operation: str | None, tags: object) -> bool:
        """By hand: every filter that is set has to fit, those on jobs only where there is a job."""
        assert isinstance(tags, frozenset)
        if event_type not in self.events:
            return False
        if provider is None:
            return True
        return (not self.providers or provider in self.providers) and (not self.tags or bool(self.tags & tags))


def some(*words: str) -> st.SearchStrategy[frozenset[str]]:
    """Some of these words."""
    return st.frozensets(st.sampled_from(words))


@given(
    filters=st.lists(st.tuples(some("completed", "failed"), some("a", "b", "c"), some("p", "q")), max_size=12),
    event_type=st.sampled_from(["completed", "failed", "other"]),
    provider=st.sampled_from(["p", "q", None]),
    tags=some("a", "b", "d"),
)
def test_index_finds_each_that_wants_an_event_once(
    filters: list[tuple[frozenset[str], frozenset[str], frozenset[str]]],
    event_type: str,
    provider: str | None,
    tags: frozenset[str],
) -> None:
    """Nobody is missed, nobody is found twice."""
    every = [One(f"sub_{number}", *each) for number, each in enumerate(filters)]
    found = Index(every).wanting(event_type, provider, "generate", tags)

    assert sorted(each.id for each in found) == sorted(
        each.id for each in every if each.wants(event_type, provider, "generate", tags)
    )


def test_index_gives_one_by_its_id() -> None:
    """A ping goes to one, whatever it filters."""
    one = One("sub_1", frozenset(), frozenset(), frozenset())

    assert Index([one]).only("sub_1") == [one]
    assert Index([one]).only("sub_2") == []
