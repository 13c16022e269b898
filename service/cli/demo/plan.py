"""What the demo sends: one job for every operation, and one for every mishap that Remora is there for.

Owns the jobs, how each should end, and what a spectator should learn from it. It must not know how they are sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

_CAT: Final = {"prompt": "A cute cat wearing a space helmet, digital art", "aspect_ratio": "16:9"}

#: A body for every operation of the built-in cards, as the provider's document shows it.
DOCUMENTED: Final[Mapping[tuple[str, str], Mapping[str, Any]]] = {
    # apimodels-sparkpix.txt, "Code Example", seen 2026-11-21; the model is the page's own.
    ("apimodels", "generate"): {"model": "sparkpix", **_CAT},
    ("sandbox", "generate"): _CAT,
}


@dataclass(frozen=True, slots=True)
class Errand:
    """One job of the demo.

    Args:
        title: What the screen calls it.
        resolved_by: Who should tell of its end, as the job says it.
        event: The event that should come.
        lesson: What it shows, when it ends as it should.
        callbacks: How many true callbacks the provider sends.
    """

    title: str
    provider: str
    operation: str
    input: Mapping[str, Any]
    resolved_by: str = "callback"
    event: str = "job.completed"
    lesson: str = "callback, confirmed → one event"
    callbacks: int = 1


def plan(operations: Iterable[tuple[str, str]]) -> list[Errand]:
    """The jobs to send.

    Args:
        operations: Provider and operation of all that is configured.
    """
    errands: list[Errand] = []
    for provider, operation in operations:
        documented = DOCUMENTED[provider, operation]
        if provider == "sandbox":
            drawn = Errand(
                "Drawn right here", provider, operation, documented, "response", lesson="finished at once → one event"
            )
            errands.append(drawn)
        else:
            errands += _with_mishaps(provider, operation, documented)
    return errands


def _with_mishaps(provider: str, operation: str, documented: Mapping[str, Any]) -> list[Errand]:
    def errand(title: str, prompt: str, **how: Any) -> Errand:
        return Errand(title, provider, operation, {**documented, "prompt": prompt}, **how)

    return [
        Errand("Cat in a space helmet", provider, operation, documented),
        errand("Lighthouse in a storm", "A lighthouse in a storm, oil painting"),
        errand("Paper boat", "A paper boat on a puddle after the rain, macro photograph"),
        errand(
            "Message in a bottle",
            "A message in a bottle that nobody finds [fault:lost-callback]",
            resolved_by="poll",
            lesson="callback lost → found by polling",
            callbacks=0,
        ),
        errand(
            "Twins in raincoats",
            "Twins in yellow raincoats [fault:double-callback]",
            lesson="callback doubled → one event",
            callbacks=2,
        ),
        errand(
            "Masked ball",
            "A masked ball in Venice [fault:forged-callback]",
            lesson="two forged callbacks → ignored",
        ),
        errand(
            "Broken bridge",
            "A broken bridge over a gorge [fault:cut-submit]",
            lesson="submit cut off → never sent twice",
        ),
        errand(
            "Something improper",
            "Something that the provider does not draw [fault:moderated]",
            event="job.failed",
            lesson="refused by moderation → failed",
        ),
    ]
