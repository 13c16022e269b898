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
    # The same, "Code Example".
    ("apimodels", "sparkpix"): {**_CAT, "seed": 42},
    ("apimodels", "sparkpix-edit"): {
        "prompt": "Make the background a sunset beach",
        "images": ["https://example.com/photo.jpg"],
        "aspect_ratio": "16:9",
    },
    ("sandbox", "generate"): _CAT,
    # sharkai-images.txt, "Code Examples".
    ("sharkai", "generate"): {
        "model": "openai/gpt-image-2",
        "prompt": "A cute baby sea otter floating on calm water",
        "size": "1024x1024",
        "quality": "high",
        "n": 1,
    },
    # sharkai-gpt-image-2.txt, "Code Examples".
    ("sharkai", "generate-sync"): {
        "model": "openai/gpt-image-2",
        "n": 1,
        "size": "auto",
        "prompt": "Your prompt here",
        "quality": "auto",
        "background": "auto",
        "output_format": "png",
    },
    # sharkapi-image.txt, "Text-only (cURL)".
    ("sharkapi", "generate"): {
        "prompt": "A great white shark in bioluminescent deep ocean, cinematic lighting, 8K",
        "variant": "1k",
    },
    # sharkapi-generate.txt, "Integrate in 60 seconds".
    ("sharkapi-v1", "generate"): {"mode": "2k", "prompt": "Deep ocean shark, cinematic lighting, 8K"},
}

_AT_ONCE: Final = "answered at once → one event"
_POLLED: Final = "no callbacks → found by polling"

#: What the operations other than apimodels' asynchronous one show: title, who tells of the end, lesson.
_SHOWN: Final[Mapping[tuple[str, str], tuple[str, str, str]]] = {
    ("apimodels", "sparkpix"): ("Cat, synchronous", "response", _AT_ONCE),
    ("apimodels", "sparkpix-edit"): ("Sunset beach", "response", _AT_ONCE),
    ("sandbox", "generate"): ("Drawn right here", "response", "finished at once → one event"),
    ("sharkai", "generate"): ("Baby sea otter", "poll", _POLLED),
    ("sharkai", "generate-sync"): ("Otter, synchronous", "response", _AT_ONCE),
    ("sharkapi", "generate"): ("Great white shark", "poll", _POLLED),
    ("sharkapi-v1", "generate"): ("Deep ocean shark", "poll", _POLLED),
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
        if (provider, operation) == ("apimodels", "generate"):
            errands += _with_mishaps(provider, operation, documented)
        else:
            title, resolved_by, lesson = _SHOWN[provider, operation]
            errands.append(Errand(title, provider, operation, documented, resolved_by, lesson=lesson, callbacks=0))
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
