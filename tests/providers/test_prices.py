"""No input lowers its own price: every card and operation, against a reader of requests that is as generous as a provider may be.

The oracle is written out by hand: what a request could ask for, however it is spelt, and what the card's document says that this
costs. It knows nothing of how prices are told.
"""

from __future__ import annotations

import copy
import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from examples.adapter import studio_adapter
from service.clock import VirtualClock
from service.egress import Answer, Call
from service.errors import CardInvalid, EgressNotSent
from service.providers.adapters import Adapters
from service.providers.card.example import plain
from service.providers.registry import Provider, Registry, read_card
from service.settings import ProviderSettings
from tests.providers.scripted import KEY

ROOT = Path(__file__).resolve().parent.parent.parent
CEILING = 700_000
UNKNOWABLE = 10**15  # micro-USD: nobody can pay it, so that an oracle that says so allows no price at all

Input = dict[str, Any]
Oracle = Callable[[Input], int]
Change = Callable[[Any, Any], None]  # of the part of a container


def counted(sent: Any) -> int:
    """How many images a request may be taken to ask for: whatever looks like a number of them, at any depth, multiplied."""
    if isinstance(sent, list):
        return max([1, *map(counted, sent)])
    if not isinstance(sent, dict):
        return 1
    found = 1
    for name, value in sent.items():
        if re.sub(r"[^a-z]", "", name.casefold()) in COUNTS:
            found *= number(value)
        found *= counted(value)
    return found


COUNTS = {"n", "num", "count", "samples", "numoutputs", "numimages", "batchsize", "images", "amount", "quantity"}


def number(value: Any) -> int:
    """What a provider that is not strict may read of a value as a number."""
    if isinstance(value, list):
        return max([1, *map(number, value)]) if not any(isinstance(each, str) for each in value) else 1
    try:
        return max(1, int(float(value)))
    except (TypeError, ValueError, OverflowError):
        return 1


def folded(value: Any) -> str:
    """A name as a provider may read it that is not strict about case, blanks and what cannot be seen."""
    return "".join(each for each in str(value).casefold() if each.isalnum())


def texts(sent: Any) -> Iterator[str]:
    """All texts and numbers of a request but prompts and addresses, as `folded`."""
    if isinstance(sent, dict):
        for name, value in sent.items():
            if name not in {"prompt", "image", "image_url"}:
                yield from texts(value)
    elif isinstance(sent, list):
        for value in sent:
            yield from texts(value)
    else:
        yield folded(sent)


def per_image(micro_usd: int) -> Oracle:
    return lambda sent: micro_usd * counted({name: value for name, value in sent.items() if name != "images"})


def sparkpix_or_unknowable(sent: Input) -> int:
    """The page prices SparkPix alone: 0.0100 USD an image. Of any other model nobody knows."""
    models = {folded(value) for name, value in sent.items() if folded(name) == "model"}
    return 10_000 * counted(sent) if models == {"sparkpix"} else UNKNOWABLE


def by_mode(sent: Input) -> int:
    """0.01 USD a request in 1k, 0.02 in 2k, wherever the request may be taken to say so; a request draws one image."""
    large = any("2k" in text or "2048" in text for text in texts(sent))
    return (20_000 if large else 10_000) * counted(sent)


def by_size(sent: Input) -> int:
    """0.02 USD for what is small, of level 0 and not fast; anything else, and what says nothing, is 0.05."""
    said = (folded(sent.get("size", "large")), folded(sent.get("level", 0)), folded(sent.get("fast", False)))
    return (20_000 if said == ("small", "0", "false") else 50_000) * counted(sent)


#: What a request costs by the card's document.
ORACLES: dict[tuple[str, str], Oracle] = {
    ("apimodels", "generate"): sparkpix_or_unknowable,
    ("apimodels", "sparkpix"): per_image(10_000),
    ("apimodels", "sparkpix-edit"): per_image(13_000),
    ("sharkapi", "generate"): per_image(30_000),
    ("sharkapi-v1", "generate"): by_mode,
    ("sharkai", "generate"): lambda _: CEILING,  # credits, known afterwards: a ceiling, whatever is asked for
    ("sharkai", "generate-sync"): lambda _: CEILING,
    ("sandbox", "generate"): lambda _: 0,
    ("bfl", "generate"): lambda _: UNKNOWABLE,
    ("fal", "generate"): lambda _: UNKNOWABLE,
    ("kie", "generate"): lambda _: UNKNOWABLE,
    ("replicate", "generate"): lambda _: UNKNOWABLE,
    ("replicate", "run-version"): lambda _: UNKNOWABLE,
    ("studio", "generate"): per_image(20_000),
    ("every-way", "by-size"): by_size,
    ("every-way", "fixed"): lambda sent: 40_000 if sent["n"] == 4 else UNKNOWABLE,
}
INPUTS: dict[tuple[str, str], list[Input]] = {
    ("studio", "generate"): [{"prompt": "A cat"}],
    ("sandbox", "generate"): [{"prompt": "A cat", "width": 64}],
    ("apimodels", "generate"): [
        {"model": "sparkpix", "prompt": "A cat", "n": 3, "image_urls": ["https://a.example/1"]}
    ],
    ("every-way", "by-size"): [
        {"prompt": "A cat", "size": "large", "n": 2, "options": {"seed": 7}, "steps": [{"scale": 1}]},
        {"prompt": "A cat", "fast": True, "level": 1},
        {"prompt": "A cat"},
    ],
    ("every-way", "fixed"): [{"prompt": "A cat"}, {"prompt": "A cat", "n": 1}],
}
#: A price that depends on fields of every type, with defaults, on an input that is open at every depth; and a count that is ours.
EVERY_WAY = """\
card: 1
name: every-way
base_url: https://every.example
operations:
  by-size:
    input:
      type: object
      required: [prompt]
      properties:
        prompt: {type: string}
        n: {type: integer, minimum: 1, maximum: 4, default: 1}
        size: {type: string, default: large}
        level: {type: integer, default: 0}
        fast: {type: boolean, default: false}
        options: {type: object, properties: {seed: {type: integer}}}
        steps: {type: array, items: {type: object, properties: {scale: {type: integer}}}}
    submit: {path: /jobs, observe: {task_id: id}}
    price:
      rows:
        - {where: {size: small, level: 0, fast: false}, usd: "0.02"}
        - {where: {size: small}, usd: "0.05"}
        - {where: {size: large}, usd: "0.05"}
      per: n
  fixed:
    input: {type: object, properties: {prompt: {type: string}, n: {type: integer, minimum: 1, maximum: 4}}}
    submit: {path: /jobs, extra: {n: 4}, observe: {task_id: id}}
    price: {rows: [{usd: "0.01"}], per: n}
"""

VALUES: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2,
        4,
        10_000,
        10_001,
        2**63,
        1.0,
        4.0,
        -0.0,
        0.5,
        1e9,
        "",
        "0",
        "1",
        "4",
        "1.0",
        "４",
    ),
    *([], [4], [[4]], ["sparkpix"], [{"n": 4}], {}, {"n": 4}, {"model": "x"}, {"seed": 1, "num_outputs": 9}),
    *(
        "SparkPix",
        "sparkpix ",
        " sparkpix",
        "spark\u200bpix",
        "sparkpⅸ",
        "ѕparkpix",
        "sparkpix\n",
        "2K",
        "2k ",
        "4k",
        "LARGE",
    ),
    *("other", "small", "large", "true", "null", "a" * 300),
]
FOREIGN = [
    *(
        "N",
        "n ",
        "\u200bn",
        "ｎ",
        "num",
        "num_images",
        "numImages",
        "num_outputs",
        "batch_size",
        "samples",
        "count",
        "Model",
        "MODEL",
    ),
    *(
        "size",
        "variant",
        "mode ",
        "resolution",
        "input",
        "parameters",
        "options",
        "extra",
        "$n",
        "n[]",
        "a/b",
        "a~b",
        "",
    ),
]
VALUES_OF_FOREIGN: list[Any] = [4, "4", "2k", "large", {"n": 4}, [{"num_images": 4}], None, True]


class Nobody:
    """A way out to nobody, which remembers the last request."""

    call_made: Call

    async def call(self, call: Call, *, timeout_s: float, read_bytes: int, fresh: bool = False) -> Answer:
        self.call_made = call
        raise EgressNotSent("connect", "nobody is there")


NOBODY = Nobody()


def providers() -> list[Provider]:
    """Every card that ships with Remora, its examples, and one with every way in which a price can depend on an input."""
    known = Adapters({"studio": lambda: studio_adapter})
    key = ProviderSettings(api_key=SecretStr(KEY), price_ceiling=CEILING)
    built_in = [each.name for each in Registry.load({}, None, NOBODY, VirtualClock()).all()]
    found = Registry.load(dict.fromkeys(built_in, key), None, NOBODY, VirtualClock()).all()
    files = [*(ROOT / "examples" / "cards").glob("*.yaml"), ROOT / "examples" / "adapter" / "studio.yaml"]
    cards = [read_card(file.read_text("utf-8"), file.name, known) for file in sorted(files)]
    cards.append(read_card(EVERY_WAY, "every-way.yaml"))
    return found + [Provider(card, key, NOBODY, VirtualClock(), adapters=known) for card in cards]


PROVIDERS = {provider.name: provider for provider in providers()}
OPERATIONS = [(name, operation) for name, provider in PROVIDERS.items() for operation in provider.card.operations]


def inputs_of(name: str, operation: str) -> list[Input]:
    """Valid inputs of an operation: those of the card's examples, and some of ours."""
    card = PROVIDERS[name].card
    shown = [each for each in card.examples if each.operation == operation and not each.invalid]
    examples = [plain(each.input) for each in shown if "input" in each.model_fields_set]
    return [*examples, *INPUTS.get((name, operation), [])]


def places(value: Any, *way: str | int) -> Iterator[tuple[str | int, ...]]:
    """The ways to all parts of an input."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, entry in entries:
        yield (*way, step)
        yield from places(entry, *way, step)


def changed(given: Input, way: tuple[str | int, ...], change: Change) -> Input:
    """A copy in which the container at the end of the way was changed."""
    made = copy.deepcopy(given)
    holder: Any = made
    for step in way[:-1]:
        holder = holder[step]
    change(holder, way[-1])
    return made


def mutants(base: Input, fields: list[str]) -> Iterator[Input]:
    """Every field, those of the schema that are not there too, in every wrong way: one change each."""
    ways = dict.fromkeys([*places(base), *((name,) for name in fields)])
    for way, value in itertools.product(ways, VALUES):
        yield changed(base, way, put(value))
    for way in places(base):
        yield changed(base, way, left_out)
        yield changed(base, way, shouted)
        yield changed(base, way, doubled)
    for way, name, value in itertools.product([(), *places(base)], FOREIGN, VALUES_OF_FOREIGN):
        yield changed(base, (*way, name), put(value))


def put(value: Any) -> Change:
    """Another value in its place, where there is one."""

    def change(holder: Any, step: Any) -> None:
        if isinstance(holder, dict) or (isinstance(holder, list) and isinstance(step, int)):
            holder[step] = copy.deepcopy(value)

    return change


def left_out(holder: Any, step: Any) -> None:
    holder.pop(step)


def shouted(holder: Any, step: Any) -> None:
    """The same under a name in capitals."""
    if isinstance(holder, dict):
        holder[step.upper()] = holder.pop(step)


def doubled(holder: Any, step: Any) -> None:
    """The same a second time, under a name that ends in a blank; an entry of a list a second time."""
    if isinstance(holder, dict):
        holder[f"{step} "] = holder[step]
    else:
        holder.append(holder[step])


async def sent_for(provider: Provider, operation: str, given: Input) -> Input:
    """What the provider would read: the body, and what stands in the path; the input itself where nothing is sent."""
    if provider.card.base_url is None:
        return given
    await provider.submit(operation, given, None)
    body: Input = json.loads(NOBODY.call_made.body or b"{}")
    return body | {name: value for name, value in given.items() if name not in body}


def taken_for(provider: Provider, operation: str, given: Input) -> int | None:
    """What is held when an account with a limit sends it; None: it is refused, at a field or for its price."""
    decoded = msgspec.json.decode(json.dumps(given))  # numbers and texts as they come from a caller
    if provider.validate(operation, decoded):
        return None
    quote = provider.quote(operation, decoded)
    if quote.unpriced:
        assert all(field.pointer.startswith(("/input/", "/operation")) for field in quote.unpriced)
        return None
    return quote.hold


def fields_of(name: str, operation: str) -> list[str]:
    return list(PROVIDERS[name].card.operations[operation].input.get("properties", {}))


@pytest.mark.parametrize(("name", "operation"), OPERATIONS)
async def test_no_change_of_an_input_lowers_its_price(name: str, operation: str) -> None:
    """Types, case, blanks, look-alikes, nulls, extremes, nesting, other names, removal: refused, or held for in full."""
    provider, oracle = PROVIDERS[name], ORACLES[name, operation]
    taken = 0
    for base in inputs_of(name, operation):
        for mutant in [base, *mutants(base, fields_of(name, operation))]:
            held = taken_for(provider, operation, mutant)
            if held is not None:
                taken += 1
                assert held >= oracle(await sent_for(provider, operation, mutant)), mutant

    assert (taken > 0) == (oracle({"model": "sparkpix", "n": 4}) < UNKNOWABLE)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
async def test_no_changes_together_lower_the_price(data: st.DataObject) -> None:
    """Several changes at once, at random, of any operation that limited accounts can use."""
    usable = [key for key, oracle in ORACLES.items() if oracle({"model": "sparkpix", "n": 4}) < UNKNOWABLE]
    name, operation = data.draw(st.sampled_from(usable))
    made = copy.deepcopy(data.draw(st.sampled_from(inputs_of(name, operation))))
    for _ in range(data.draw(st.integers(1, 4))):
        ways = [*places(made), *((field,) for field in [*fields_of(name, operation), *FOREIGN])]
        way, value = data.draw(st.sampled_from(ways)), data.draw(st.sampled_from(VALUES))
        made = changed(made, way, put(value))
    held = taken_for(PROVIDERS[name], operation, made)

    assert held is None or held >= ORACLES[name, operation](await sent_for(PROVIDERS[name], operation, made)), made


@pytest.mark.parametrize("value", [1.0, 4.0, "4", None, True, 0, -1, 10_001, [4], 2**63])
def test_count_is_a_whole_number_or_refused(value: object) -> None:
    """By pointer, and with what would be right; also for accounts without a limit."""
    (error,) = PROVIDERS["apimodels"].validate("generate", {"model": "sparkpix", "prompt": "A cat", "n": value})

    assert error.pointer == "/input/n"
    assert "whole number" in error.detail or error.detail == "must be from 1 to 10000"


def test_what_decides_the_price_is_named() -> None:
    """Each field that no row knows and each that the schema does not name, with what would be right."""
    quote = PROVIDERS["apimodels"].quote("generate", {"model": "SparkPix", "prompt": "A cat", "a/b": {"n": 4}})

    assert [field.pointer for field in quote.unpriced] == ["/input/model", "/input/a~1b"]
    assert quote.unpriced[0].detail.endswith("; priced are sparkpix")
    assert (quote.estimate, quote.hold) == (None, 0)


def test_field_that_is_left_out_counts_as_its_default() -> None:
    """Of what chooses the row, and of what multiplies it."""
    two = read_card(EVERY_WAY.replace("maximum: 4, default: 1", "maximum: 4, default: 2"), "every-way.yaml")
    quote = Provider(two, ProviderSettings(), NOBODY, VirtualClock()).quote("by-size", {"prompt": "A cat"})

    assert (quote.hold, quote.unpriced) == (100_000, ())


def test_input_of_too_many_parts_has_no_price() -> None:
    """What is too much to be looked at is not taken for harmless, and holds up nobody."""
    many = {"prompt": "A cat", "steps": [{"scale": 1}] * 50_000}
    quote = PROVIDERS["every-way"].quote("by-size", many)

    assert (len(quote.unpriced), quote.unpriced[0].pointer[:13]) == (20, "/input/steps/")


def test_field_that_nobody_described_leaves_the_estimate() -> None:
    """Accounts without a limit send it as before, and are told the price of what is known."""
    quote = PROVIDERS["apimodels"].quote("generate", {"model": "sparkpix", "prompt": "A cat", "n": 2, "style": "noir"})

    assert (quote.estimate and quote.estimate.micro_usd, quote.hold) == (20_000, 20_000)
    assert [field.pointer for field in quote.unpriced] == ["/input/style"]


UNKNOWN = """\
card: 1
name: one
base_url: https://one.example
operations:
  generate:
    input: {type: object, required: [size], properties: {size: {type: string}}}
    submit: {path: /jobs, observe: {task_id: id, cost: {path: usd}}}
    price: {rows: [{where: {size: huge}, usd: "0.90"}, {where: {size: small}, usd: "0.01"}], unknown: true}
"""


@pytest.mark.parametrize(
    ("given_input", "estimate", "hold"),
    [
        ({"size": "small"}, 10_000, 10_000),
        ({"size": "Small"}, None, 700_000),
        ({"size": "small", "n": 4}, 10_000, 700_000),
        ({"size": "huge", "n": 4}, 900_000, 900_000),
    ],
)
def test_ceiling_is_held_where_the_card_says_unknown(given_input: Input, estimate: int | None, hold: int) -> None:
    """Beside rows it is held for what they do not tell; an estimate stays what the list says."""
    key = ProviderSettings(price_ceiling=700_000)
    quote = Provider(read_card(UNKNOWN, "one.yaml"), key, NOBODY, VirtualClock()).quote("generate", given_input)

    assert (quote.estimate.micro_usd if quote.estimate else None, quote.hold, quote.unpriced) == (estimate, hold, ())


def test_ceiling_is_the_providers_own_then_the_general_one() -> None:
    """The setting of a card counts before that of all cards; a card that does not ask for one has none."""
    cards = {"sharkai": ProviderSettings(price_ceiling=250_000)}
    own = Registry.load(cards, None, NOBODY, VirtualClock(), price_ceiling=5).get("sharkai")
    general = Registry.load({}, None, NOBODY, VirtualClock(), price_ceiling=5).get("sharkai")
    usual = Registry.load({}, None, NOBODY, VirtualClock()).get("sharkai")

    ceilings = [each and each.price_ceiling("generate") for each in (own, general, usual)]
    assert ceilings == [250_000, 5, 1_000_000]
    assert PROVIDERS["apimodels"].price_ceiling("generate") is None


PRICED = """\
card: 1
name: one
base_url: https://one.example
operations:
  generate:
    input: {type: object, properties: {n: {type: integer, minimum: 1, maximum: 4}, size: {type: string, enum: [s, l]}}}
    submit: {path: /jobs, observe: {task_id: id}}
    price: {rows: [{where: {size: s}, usd: "0.01"}, {usd: "0.02"}], per: n}
"""


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("type: integer, minimum", "minimum", "per: input.properties.n must be"),
        ("type: integer", "type: number", "per: input.properties.n must be"),
        ("type: integer", "type: [integer, 'null']", "per: input.properties.n must be"),
        ("minimum: 1", "minimum: 0", "per: input.properties.n must be"),
        ("minimum: 1", "minimum: 0.5", "per: input.properties.n must be"),
        (", maximum: 4", "", "per: input.properties.n must be"),
        ("maximum: 4", "maximum: 10001", "per: input.properties.n must be"),
        ("maximum: 4", "maximum: 4, default: 5", "the default of input.properties.n can never be 5"),
        ("maximum: 4", "maximum: 4, default: 1.0", "the default of input.properties.n can never be 1.0"),
        ("per: n", "per: count", "per: input.properties.count must be"),
        ("type: string, enum: [s, l]", "enum: [s, l]", "where: input.properties.size must have the type"),
        ("type: string, enum: [s, l]", "type: array", "where: input.properties.size must have the type"),
        ("enum: [s, l]", "enum: [m, l]", "input.properties.size can never be 's'"),
        ("type: string, enum: [s, l]", "type: integer", "input.properties.size can never be 's'"),
        ("where: {size: s}", "where: {mode: s}", "where: input.properties.mode must have the type"),
        ("per: n", "per: n, unknown: true", "price.unknown needs observe.cost"),
    ],
)  # fmt: skip
def test_price_that_could_be_talked_down_is_no_card(old: str, new: str, reason: str) -> None:
    """What decides the price is typed by the schema; otherwise the card is refused with the place."""
    assert old in PRICED
    read_card(PRICED, "one.yaml")

    with pytest.raises(CardInvalid) as caught:
        read_card(PRICED.replace(old, new, 1), "one.yaml")

    assert reason in str(caught.value)


@pytest.mark.parametrize("usd", ["0.0000004", "1000001", "1e-7"])
def test_amount_that_cannot_be_counted_is_no_price(usd: str) -> None:
    """A row that would round to nothing, or that no store can count, is refused at its line."""
    with pytest.raises(CardInvalid, match=r"8: operations.generate.price.rows.1.usd: write US dollars"):
        read_card(PRICED.replace('"0.02"', f'"{usd}"'), "one.yaml")


def test_unknown_is_short_for_a_price_without_rows() -> None:
    """`price: unknown` and `price: {unknown: true}` are the same."""
    costing = PRICED.replace("{task_id: id}", "{task_id: id, cost: {path: usd}}")
    start = costing.index("    price:")
    short, long = (
        read_card(costing[:start] + text, "one.yaml") for text in ("    price: unknown", "    price: {unknown: true}")
    )

    assert short.operations["generate"].price == long.operations["generate"].price
