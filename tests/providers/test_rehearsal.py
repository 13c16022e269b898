"""Examples inside a card: what differs is told with its place."""

from __future__ import annotations

import pytest

from service.clock import VirtualClock
from service.errors import CardInvalid
from service.providers.card.loading import load_card, locate
from service.providers.rehearsal import rehearse

CARD = """\
card: 1
name: one
base_url: https://one.example
auth: {header: x-key, value: "{secret}"}
operations:
  generate:
    input: {type: object, properties: {n: {type: integer}}, additionalProperties: false}
    submit: {path: /jobs}
    poll:
      path: /jobs/{id}
      observe: {task_id: id, state: status, states: {open: running, done: completed}, urls: files, cost: {path: usd}}
    cancel: {path: "/jobs/{id}"}
    callback: {slot: {in: body, field: hook}}
    price: {rows: [{usd: "0.5"}]}
examples:
  - name: shown
    operation: generate
"""


async def differences(example: str) -> list[str]:
    """What the card says of one more example, each with its line."""
    text = CARD + "".join(f"    {line}\n" for line in example.splitlines())
    found = await rehearse(load_card(text, "one.yaml"), VirtualClock())
    return [f"{locate(text, each.place)[0]}: {locate(text, each.place)[1]}: {each.reason}" for each in found]


SUBMIT = """\
input: {{n: 1}}
estimate: "{usd}"
submit:
  callback_url: https://remora.example/c
  request:
    method: {method}
    url: https://one.example/{path}
    headers: {{X-Key: "{key}"}}
    body: {body}
  answer: {{body: {{id: a, status: open}}}}
  expect: {{verdict: {verdict}, state: running, task_id: {task}}}
"""
RIGHT = {
    "usd": "0.5",
    "method": "POST",
    "path": "jobs",
    "key": "{secret}",
    "body": '{n: 1, hook: "https://remora.example/c"}',
    "verdict": "accepted",
    "task": "a",
}


async def test_example_that_comes_out_says_nothing() -> None:
    """Everything that the example shows is so."""
    assert await differences(SUBMIT.format(**RIGHT)) == []


@pytest.mark.parametrize(
    ("part", "wrong", "line"),
    [
        ("usd", "0.6", "19: examples.0.estimate: expected 600000, got 500000"),
        ("method", "PUT", "23: examples.0.submit.request.method: expected 'PUT', got 'POST'"),
        ("path", "job", "24: examples.0.submit.request.url: expected 'https://one.example/job', got 'https://one.example/jobs'"),
        ("key", "key", "25: examples.0.submit.request.headers.X-Key: expected 'key', got 'example-key'"),
        ("body", "{n: 2, hook: 'https://remora.example/c'}", "26: examples.0.submit.request.body.n: expected 2, got 1"),
        ("body", "{n: 1}", "26: examples.0.submit.request.body.hook: is sent too: 'https://remora.example/c'"),
        ("verdict", "refused", "28: examples.0.submit.expect.verdict: expected 'refused', got 'accepted'"),
        ("task", "b", "28: examples.0.submit.expect.task_id: expected 'b', got 'a'"),
        ("task", "null", "28: examples.0.submit.expect.task_id: expected nothing, got 'a'"),
    ],
)  # fmt: skip
async def test_difference_is_told_with_its_line(part: str, wrong: str, line: str) -> None:
    """One difference, one line, at the place where the example says otherwise."""
    found = await differences(SUBMIT.format(**{**RIGHT, part: wrong}))

    assert found == [line]


@pytest.mark.parametrize(
    ("example", "line"),
    [
        ("input: {n: x}", "18: examples.0.input: /input/n: must be a whole number"),
        ("input: {n: 1}\ninvalid: [/input/n]", "19: examples.0.invalid: nothing is wrong with /input/n"),
        ("poll: {answer: {body: {status: done, usd: 1}}, expect: {cost: {usd: '2'}}}", "18: examples.0.poll.expect.cost.usd: expected 2000000, got 1000000"),
        ("poll: {answer: {body: {status: done, files: ['https://a.example/1']}}, expect: {urls: []}}", '18: examples.0.poll.expect.urls: expected [], got ["https://a.example/1"]'),
        ("poll: {answer: {lost: cut}, expect: {verdict: observed}}", "18: examples.0.poll.expect.verdict: expected 'observed', got 'retry'"),
        ("poll: {answer: {body: {status: odd}}, expect: {state: running}, more: [{}]}", "18: examples.0.poll.more.0.request: is never sent: there was nothing to ask for"),
        ("cancel: {answer: {status: 409}, expect: {verdict: cancelled}}", "18: examples.0.cancel.expect.verdict: expected 'cancelled', got 'too_late'"),
        ("callback: {body: {id: a, status: done}, expect: {state: failed}}", "18: examples.0.callback.expect.state: expected 'failed', got 'completed'"),
        ("callback: {text: nothing, expect: {state: completed}}", "18: examples.0.callback.expect.state: expected 'completed', got nothing"),
    ],
)  # fmt: skip
async def test_every_step_is_compared(example: str, line: str) -> None:
    """Inputs, polls, cancels and callbacks as well as submissions."""
    assert await differences(example) == [line]


@pytest.mark.parametrize(
    ("example", "line"),
    [
        ("submit: {request: {bodies: 1}}", "18: examples.0.submit.request.bodies: there is no such field in a card"),
        ("submit: {expect: {verdict: taken}}", "18: examples.0.submit.expect.verdict: Input should be"),
        ("invalid: [/input/n]\nsubmit: {}", "16: examples.0: an input that is invalid is not submitted"),
        ("source: somewhere", "16: examples.0: write input, submit, poll, cancel or callback"),
        ("poll: {expect: {finished_at: soon}}", "18: examples.0.poll.expect.finished_at: "),
    ],
)
async def test_example_in_a_wrong_form_is_refused(example: str, line: str) -> None:
    """Examples are part of the card, and as strict."""
    with pytest.raises(CardInvalid) as caught:
        await differences(example)

    assert str(caught.value).startswith(f"one.yaml:{line}")


async def test_example_of_no_operation_is_refused() -> None:
    """A slip in the name would try nothing."""
    with pytest.raises(CardInvalid, match=r"one\.yaml:15: examples: 'shown' is of 'edit', which is none of operations"):
        load_card(CARD.replace("operation: generate\n", "operation: edit\n    input: {}\n"), "one.yaml")
