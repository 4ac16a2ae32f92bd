"""Taking members out of an event whose purpose is denied."""

from __future__ import annotations

from collections.abc import Iterable

from cdi.event.v1 import event_pb2
from cdi_kernel.json_paths import without


def drop(event: event_pb2.Event, columns: Iterable[str]) -> None:
    """Takes columns out of an event, and what the request itself said in their place: address and user agent.

    Args:
        event: changed in place.
        columns: paths below "properties", "traits" or "context"; within a list the path goes on in each item.

    Raises:
        Rejected: a document that holds one of them is no JSON object.
    """
    for column in columns:
        root, *path = column.split(".")
        if column == "context.ip":
            event.ClearField("client_ip")
        elif column == "context.userAgent":
            event.ClearField("user_agent")
        if root == "properties":
            event.properties = without(event.properties, path)
        elif root == "traits":
            event.traits = without(event.traits, path)
        elif root == "context":
            event.context = without(event.context, path)
