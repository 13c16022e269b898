"""The accounts' default signing secrets: sealed at rest, opened for signing."""

from __future__ import annotations

from typing import Final

from service.accounts import store
from service.clock import Randomness
from service.db.reader import Reader
from service.db.sealing import SecretBox
from service.db.transaction import Tx
from service.signing import decode_secret, new_secret

SHOWN_CHARS: Final = 10  # `whsec_` and four more


def seal_place(account_id: str) -> str:
    """The place that an account's secret is sealed for; the previous one keeps it when it moves."""
    return f"accounts/{account_id}/secret"


def new_sealed(box: SecretBox, randomness: Randomness, account_id: str) -> tuple[str, bytes]:
    """A new `whsec_…` in the clear, to be shown once, and sealed, to be kept."""
    text = new_secret(randomness)
    return text, box.seal(text.encode(), seal_place(account_id))


async def signing_secrets(source: Reader | Tx, box: SecretBox, account_id: str, now_ms: int) -> list[bytes]:
    """The raw secrets that sign for an account now, newest first; the previous one co-signs while it is in grace.

    Args:
        source: Where to read: the writer's transaction or a reader.
        box: Opens what is sealed.
        account_id: Whose; empty for an account that does not exist.
        now_ms: The time that decides about the grace.
    """
    place = seal_place(account_id)
    secrets: list[bytes] = []
    for row in await store.sealed_secrets(source, account_id):
        secrets.append(decode_secret(box.open(bytes(row["secret"]), place).decode()))
        if row["previous_secret"] is not None and (row["previous_secret_until"] or 0) > now_ms:
            secrets.append(decode_secret(box.open(bytes(row["previous_secret"]), place).decode()))
    return secrets
