"""`remora providers`: which cards are in force, and whether one is right."""

from __future__ import annotations

from pathlib import Path

from tests.cli.commands import ROOT, run

CARDS = ROOT / "service" / "providers" / "cards"
CARD = """\
card: 1
name: mine
base_url: https://mine.example
operations:
  draw:
    input: {type: object}
    submit: {path: /jobs}
    poll: {path: "/jobs/{id}", observe: {task_id: id, state: status, states: {done: completed}, urls: files}}
examples:
  - name: done
    operation: draw
    poll:
      answer: {body: {id: a, status: done}}
      expect: {state: completed}
"""


def test_providers_shows_every_card_in_force(tmp_path: Path) -> None:
    """Built-in and own, with what is missing to use them."""
    (tmp_path / "mine.yaml").write_text(CARD)
    result = run(
        "providers", directory=tmp_path, REMORA_CARDS_DIR=str(tmp_path), REMORA_PROVIDERS__SHARKAI__API_KEY="sk-key"
    )
    rows = [line.split() for line in result.stdout.splitlines()]

    assert result.returncode == 0
    assert ["mine", "draw", "poll", "yes"] in rows
    assert ["sharkai", "generate", "poll,", "can", "cancel", "yes"] in rows
    assert ["sparkpix-edit", "callback"] in rows
    assert "REMORA_PROVIDERS__SHARKAPI_V1__API_KEY is not set" in result.stdout
    assert "sk-key" not in result.stdout


def test_check_praises_cards_that_are_right(tmp_path: Path) -> None:
    """Every card that ships, with its examples tried."""
    result = run("providers", "check", *map(str, sorted(CARDS.glob("*.yaml"))), directory=tmp_path)

    assert (result.returncode, result.stderr) == (0, "")
    assert "sharkai.yaml: sharkai: generate, generate-sync: is right" in result.stdout
    assert "sandbox.yaml: sandbox: generate: is right; has no examples to try" in result.stdout


def test_check_names_line_and_field(tmp_path: Path) -> None:
    """What is no card, what is a wrong one, and an example that does not come out: each a line, status 1."""
    wrong = {
        "form.yaml": CARD.replace("done: completed", "done: finished"),
        "example.yaml": CARD.replace("state: completed", "state: failed"),
        "none.yaml": "just words",
        "bytes.yaml": None,
    }
    for name, text in wrong.items():
        (tmp_path / name).write_bytes(b"\xff" if text is None else text.encode())
    result = run("providers", "check", *wrong, "missing.yaml", directory=tmp_path)

    assert result.returncode == 1
    form, *others = result.stderr.splitlines()
    assert form.startswith("form.yaml:8: operations.draw.poll.observe.states.done: write one of queued, running")
    assert others == [
        "example.yaml:14: examples.0.poll.expect.state: expected 'failed', got 'completed'",
        "none.yaml:1: card: the file is no mapping; start with card: 1",
        "bytes.yaml:1: card: is no UTF-8 text",
        "missing.yaml:1: card: cannot be read: No such file or directory",
    ]
    assert result.stdout == ""
