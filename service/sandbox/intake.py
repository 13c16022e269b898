"""What comes before a request is taken up, the same for every dialect: the key is judged, the body is read.

Owns the order of these checks. It must not know which fields a dialect has or how it words a refusal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from service.sandbox import keys
from service.sandbox.dialect import Dialect
from service.sandbox.fields import Invalid
from service.sandbox.flow import Flow
from service.sandbox.http import Reply, Request, json_object
from service.sandbox.tasks import Draft

#: Reads a submit's body; the second argument is the origin under which the caller reaches the files. Raises `Invalid`.
Read = Callable[[Mapping[str, Any], str], Draft]


class Intake:
    """Hands requests on to the flow; one for a port.

    Args:
        flow: What takes them.
        base_url: Where callers find the port whose `Host` header tells nothing.
    """

    def __init__(self, flow: Flow, base_url: str) -> None:
        self._flow = flow
        self._base_url = base_url

    async def submit(self, dialect: Dialect, request: Request, read: Read) -> Reply:
        """Take a submit, or refuse its key or its body."""
        refused = _refuse(dialect, request, costs=True)
        if refused is not None:
            return refused
        try:
            draft = read(json_object(request.body), request.origin(self._base_url))
        except Invalid as error:
            return dialect.error(error.status, str(error))
        except ValueError:
            return dialect.error(400, "The body must be a JSON object in UTF-8")
        return await self._flow.submit(dialect, draft)

    async def poll(self, dialect: Dialect, request: Request, task_id: str) -> Reply:
        """Tell how a task stands."""
        return _refuse(dialect, request, costs=False) or await self._flow.poll(dialect, task_id)

    async def cancel(self, dialect: Dialect, request: Request, task_id: str) -> Reply:
        """Cancel a task."""
        return _refuse(dialect, request, costs=False) or await self._flow.cancel(dialect, task_id)


def _refuse(dialect: Dialect, request: Request, *, costs: bool) -> Reply | None:
    refusal = keys.refusal(request, costs=costs)
    return refusal and dialect.error(*refusal)
