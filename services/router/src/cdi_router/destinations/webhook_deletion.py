"""Telling a webhook to delete a person (``WebhookDeletion`` in destination.proto)."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import quote

import msgspec
import yarl

from cdi_router.destinations.webhook import WebhookEndpoint, WebhookKind
from cdi_router.domain.answer import Answer
from cdi_router.domain.deletion import Forgotten
from cdi_router.domain.destination import DeletionCall, Destination

_ID: Final = "{id}"
_TYPE: Final = "{type}"
_encode = msgspec.json.Encoder().encode


class WebhookDeleter:
    """The ``Deleter`` of a webhook.

    Args:
        endpoint: its client.
        deletion: what to send.
    """

    def __init__(self, endpoint: WebhookEndpoint, deletion: DeletionCall) -> None:
        self._endpoint = endpoint
        self._deletion = deletion

    def calls(self, person: Forgotten) -> int:
        """See ``Deleter``."""
        subjects = self._subjects(person)
        return len(subjects) if _ID in self._deletion.url else min(len(subjects), 1)

    async def delete(self, person: Forgotten, number: int) -> Answer:
        """See ``Deleter``. The key is the same for the same call of the same telling, whenever it is sent."""
        subjects = self._subjects(person)
        url: str | yarl.URL = self._deletion.url
        if _ID in self._deletion.url:
            kind, value = subjects[number]
            subjects = subjects[number : number + 1]
            put_in = self._deletion.url.replace(_TYPE, quote(kind, safe="")).replace(_ID, quote(value, safe=""))
            url = yarl.URL(put_in, encoded=True)
        body = {
            "type": "delete",
            "requestId": person.request_id,
            "workspaceId": person.workspace_id,
            "subjects": [{"type": kind, "id": value} for kind, value in subjects],
            "profileIds": list(person.profile_ids),
        }
        key = hashlib.sha256(f"{person.request_id}\x1f{person.attempt}\x1f{self._deletion.url}\x1f{number}".encode()).hexdigest()[:32]
        return await self._endpoint.request(self._deletion.method, url, _encode(body), key)

    def _subjects(self, person: Forgotten) -> Sequence[tuple[str, str]]:
        types = self._deletion.id_types
        return sorted((kind, value) for kind, value in person.subjects if not types or kind in types)


@asynccontextmanager
async def webhook_deleting(destination: Destination, environment: Mapping[str, str]) -> AsyncIterator[WebhookDeleter | None]:
    """See ``Deleting``."""
    deletion = destination.webhook.deletion
    if deletion is None:
        yield None
        return
    async with WebhookKind().open(destination, environment) as endpoint:
        yield WebhookDeleter(endpoint, deletion)
