"""How faults are written, and who gets them."""

from __future__ import annotations

from random import Random

import pytest

from service.sandbox.faults import Channel, Deck, Fault, describe, marked_faults, parse_faults

NONE: frozenset[Channel] = frozenset()
CALLS = frozenset({Channel.CALLBACK})
WORDS = {
    "lost-callback",
    "double-callback",
    "late-callback",
    "early-callback",
    "forged-callback",
    "conflicting-callback",
    "garbled-callback",
    "refused-submit",
    "submit-500",
    "bad-gateway",
    "gateway-timeout",
    "code-in-200",
    "cut-submit",
    "cut-submit-lost",
    "slow-submit",
    "failing-polls",
    "not-found-lag",
    "late-cancel",
    "ignored-cancel",
    "cut-cancel",
    "foreign-links",
    "completed-without-file",
    "failed",
    "moderated",
    "stuck",
    "instant",
    "unknown-state-word",
    "giant-answer",
    "html-error",
}


def test_parse_faults_reads_words_arguments_and_how_often() -> None:
    """`word[:argument][=probability or count]`: a point makes it a probability."""
    faults = parse_faults("lost-callback, double-callback=0.5,late-callback:2.5,cut-submit=2,refused-submit:402=1.0,")

    assert faults == (
        Fault("lost-callback"),
        Fault("double-callback", probability=0.5),
        Fault("late-callback", "2.5"),
        Fault("cut-submit", count=2),
        Fault("refused-submit", "402", probability=1.0),
    )
    assert parse_faults(",".join(map(str, faults))) == faults


def test_parse_faults_knows_every_word_and_describes_it() -> None:
    """Each word of the documentation can be asked for alone and stands in the help."""
    for word in WORDS:
        assert [fault.word for fault in parse_faults(word)] == [word]
    assert {line.split(":")[0].split(" ")[0] for line in describe().splitlines()} == WORDS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lost-calback", "did you mean lost-callback"),
        ("nonsense", "known are: lost-callback, double-callback"),
        ("=0.5", "unknown fault"),
        (":", "unknown fault"),
        ("failed:3", "failed takes no argument"),
        ("late-callback:soon", "number of seconds such as 5, not 'soon'"),
        ("late-callback:-1", "number of seconds"),
        ("failing-polls:1.5", "number of polls"),
        ("garbled-callback:xml", "one of json, utf8, huge"),
        ("failed=1.5", "write a probability"),
        ("failed=0", "write a probability"),
        ("failed=often", "write a probability"),
    ],
)
def test_parse_faults_says_what_is_wrong(text: str, said: str) -> None:
    """A bad wish is refused with the word and with what would be right."""
    with pytest.raises(ValueError) as caught:
        parse_faults(text)

    assert said in str(caught.value)


def test_marked_faults_come_from_the_prompt() -> None:
    """A prompt can hold several markers, and each can hold several words."""
    marked = marked_faults("a cat [fault:lost-callback] on [fault:failed, slow-submit:1] Mars")

    assert [fault.word for fault in marked] == ["lost-callback", "failed", "slow-submit"]


def test_deck_counts_tasks() -> None:
    """A count is used up by as many tasks; a new wish starts again."""
    deck = Deck(parse_faults("failed=2"), Random(1))

    assert [deck.deal(NONE).has("failed") for _ in range(4)] == [True, True, False, False]
    deck.replace(parse_faults("failed=1"))
    assert [deck.deal(NONE).has("failed") for _ in range(2)] == [True, False]


def test_deck_throws_dice_that_repeat() -> None:
    """A probability holds about as often as it says, and the same seed gives the same run."""
    runs = [[Deck(parse_faults("failed=0.25"), rng).deal(NONE).has("failed")] for rng in [Random(7), Random(7)]]
    deck = Deck(parse_faults("failed=0.25"), Random(7))

    assert runs[0] == runs[1]
    assert 200 <= sum(deck.deal(NONE).has("failed") for _ in range(1000)) <= 300


def test_deck_grants_a_prompt_its_own() -> None:
    """A prompt's wish beats the server's argument for the same word."""
    plan = Deck(parse_faults("late-callback:9"), Random(1)).deal(CALLS, parse_faults("late-callback:2"))

    assert plan.number("late-callback") == 2


def test_deck_spares_those_who_could_not_notice() -> None:
    """A fault of callbacks neither befalls nor is used up by a task that has none."""
    deck = Deck(parse_faults("lost-callback=1,bad-gateway:cancel=1"), Random(1))

    assert deck.deal(frozenset({Channel.POLL})).faults == {}
    assert set(deck.deal(CALLS | {Channel.CANCEL}).faults) == {"lost-callback", "bad-gateway"}


@pytest.mark.parametrize(
    ("wish", "lacking"),
    [
        ("lost-callback", "callback"),
        ("failing-polls:2", "poll"),
        ("late-cancel", "cancel"),
        ("foreign-links", "links"),
        ("code-in-200:402", "codes"),
        ("html-error:poll", "poll"),
        ("bad-gateway:cancel", "cancel"),
    ],
)
def test_deck_refuses_a_wish_that_makes_no_sense(wish: str, lacking: str) -> None:
    """A test that waits for a callback's loss where there are no callbacks would pass for the wrong reason."""
    with pytest.raises(ValueError) as caught:
        Deck((), Random(1)).deal(NONE, parse_faults(wish))

    assert str(caught.value) == f"fault {wish} makes no sense here: this operation has no {lacking}"
