"""A wrong card is refused with file, line, field and reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import CardInvalid
from service.providers.card.loading import load_card

GOOD = """\
card: 1
name: one
base_url: https://one.example
auth: {header: x-key, value: "{secret}"}
operations:
  generate:
    input:
      type: object
    submit:
      path: /jobs
    poll:
      path: /jobs/{id}
      every: 2s
      observe:
        task_id: id
        state: status
        states: {open: running, done: completed}
        urls: files
"""


def refused(text: str) -> list[str]:
    """The lines of the refusal, with the file's name taken off."""
    with pytest.raises(CardInvalid) as caught:
        load_card(text, "one.yaml", ["drawing"])
    lines = str(caught.value).splitlines()
    assert all(line.startswith("one.yaml:") for line in lines)
    return [line.removeprefix("one.yaml:") for line in lines]


def test_card_of_the_least_is_enough() -> None:
    """Everything that is not said has a value that is safe."""
    card = load_card(GOOD, "one.yaml")

    assert card.operations["generate"].submit_observe() is card.operations["generate"].callback_observe()
    assert card.limits.in_flight == 100
    assert card.limits.submit_rate is None


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("name: one", "name: One!", "2: name: String should match pattern"),
        ("card: 1", "card: 2", "1: card: Input should be 1"),
        ("  generate:", "  generate:\n    inputs: {}", "7: operations.generate.inputs: there is no such field in a card"),
        ("      path: /jobs\n", "      method: POST\n", "9: operations.generate.submit.path: is missing"),
        ("path: /jobs/{id}", "path: /jobs", "11: operations.generate.poll: path or query needs {id}"),
        ("every: 2s", "every: 2", "13: operations.generate.poll.every: write a duration such as"),
        ("every: 2s", "every: [2s]", "13: operations.generate.poll.every: write a duration such as"),
        ("state: status", "state: status[", "16: operations.generate.poll.observe.state: is no JMESPath expression"),
        ("state: status", "state: lower(status)", "16: operations.generate.poll.observe.state: calls lower(), which does"),
        ("done: completed", "done: finished", "17: operations.generate.poll.observe.states.done: write one of queued,"),
        ("done: completed", "done: failed/oops", "17: operations.generate.poll.observe.states.done: write one of queued,"),
        ("        state: status\n", "", "14: operations.generate.poll.observe: state (where the word is) and states"),
        ("path: /jobs/{id}", "path: /jobs/{job}", "11: operations.generate.poll: a poll knows one placeholder: {id}"),
        ("path: /jobs/{id}", "path: jobs", "12: operations.generate.poll.path: write a path that begins with one slash"),
        ("path: /jobs/{id}", "path: /jobs/{id", "12: operations.generate.poll.path: a brace is not closed"),
        ("type: object", "type: objekt", "7: operations.generate.input: an input is an object"),
        ("type: object", "type: object\n      properties: {n: {minimum: a}}", "7: operations.generate.input: is no JSON Schema"),
        ("https://one.example", "one.example", "3: base_url: write http(s)://host[:port]"),
        ('"{secret}"', "Bearer", "4: auth: value needs {secret} where the key goes"),
        ("operations:", "default_operation: edit\noperations:", "1: card: default_operation 'edit' is none of operations"),
        ("        task_id: id\n", "", "6: operations.generate: submit.observe.task_id is missing"),
        ("base_url: https://one.example\n", "", "1: card: base_url and, in every operation, submit are needed"),
        ("base_url:", "adapter: drawing\nbase_url:", "1: card: an adapter speaks for itself"),
        ("base_url:", "adapter: painting\nbase_url:", "3: adapter: there is no adapter 'painting'; known: drawing"),
        ("operations:", "limits: {in_flight: 0}\noperations:", "5: limits.in_flight: Input should be greater than or equal"),
        ("operations:", "limits: {submit_rate: fast}\noperations:", "5: limits.submit_rate: write submissions per time"),
        ("operations:", "errors: {rules: [{error: internal}]}\noperations:", "5: errors.rules.0: a rule needs a condition"),
        ("operations:", "errors:\n  rules:\n    - {status: 600, error: internal}\noperations:", "7: errors.rules.0.status: write a status"),
        ("operations:", "errors:\n  failures: [{message: '(', error: internal}]\noperations:", "6: errors.failures.0.message: is no regular"),
        ("name: one", "name: one\nname: two", "3: name: is there twice"),
        ("        urls: files", "        urls: files\n        urls: other", "19: operations.generate.poll.observe.urls: is there twice"),
        ("name: one", "name: [one", "3: card: "),
    ],
)  # fmt: skip
def test_mistake_is_told_with_its_line(old: str, new: str, line: str) -> None:
    """One mistake, one line, at the place where it stands."""
    assert old in GOOD

    lines = refused(GOOD.replace(old, new, 1))

    assert len(lines) == 1
    assert lines[0].startswith(line)


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file() -> None:
    """Nobody mends a card one start at a time."""
    lines = refused(GOOD.replace("name: one", "name: 7").replace("every: 2s", "every: soon").replace("/jobs/{id}", "x"))

    assert [line.split(": ")[:2] for line in lines] == [
        ["2", "name"],
        ["12", "operations.generate.poll.path"],
        ["13", "operations.generate.poll.every"],
    ]


@pytest.mark.parametrize(
    "text", ["", "just words", "- a\n- list", "\x00", "a: *nowhere", "a: 2026-13-45", "!!python/object:os.x {}"]
)
def test_text_that_is_no_card_is_refused(text: str) -> None:
    """Whatever lies in the directory, the answer is a line and no traceback."""
    (line,) = refused(text)

    assert line.split(":")[0].isdigit()


def test_shared_parts_may_be_written_once() -> None:
    """Anchors and merges are YAML's own; a field beside a merge wins over the merged one."""
    text = GOOD.replace("observe:", "observe: &seen") + (
        "    callback:\n      slot: {in: body, field: hook}\n      observe: {<<: *seen, state: event}\n"
    )

    operation = load_card(text, "one.yaml").operations["generate"]

    assert operation.callback_observe().state == "event"
    assert operation.callback_observe().urls == "files"


def test_card_of_the_documentation_is_a_card() -> None:
    """What docs/providers.md shows first can be copied."""
    page = (Path(__file__).parents[2] / "docs" / "providers.md").read_text("utf-8")
    shown = page.split("```yaml\n", 1)[1].split("```", 1)[0]

    assert load_card(shown, "docs/providers.md").name == "painter"
