"""RudderStack's data plane beside what it shares with Segment: merge, the beacon, pixels, and the configuration of its browser SDK."""

from __future__ import annotations

from functools import partial
from typing import Final

from cdi_collector.domain.limits import MAX_BATCH_BYTES, MAX_EVENT_BYTES
from cdi_collector.http.base import Page, Parcel, Request, Route, Routes, basic_user
from cdi_collector.http.responses import Response, as_json
from cdi_collector.http.segment import pixel_routes, read_batch, read_event
from cdi_kernel.faults import PermissionDenied


def read_beacon(request: Request) -> Parcel:
    """A batch that a browser sends as its page goes: it cannot set a header, so the key is in the address."""
    parcel = read_batch(request)
    if (write_key := request.query.get("writeKey")) is not None:
        parcel.write_key = write_key
    return parcel


def source_config(request: Request) -> Response:
    """What analytics-js has to know of its source before it sends: that it exists, and that nothing but this door takes its events.

    Raises:
        Unauthenticated: no source has the write key.
    """
    write_key = basic_user(request.headers.get(b"authorization", b"")) or request.query.get("writeKey") or ""
    enabled = True
    try:
        source = request.sources.authenticate(write_key)
        source_id, workspace_id = str(source.source_id), str(source.workspace_id)
    except PermissionDenied as fault:
        # The SDK tells a developer by itself that the source is switched off.
        enabled, source_id, workspace_id = False, fault.metadata["source"], ""
    off = {"enabled": False}
    return as_json(
        {
            "source": {
                "id": source_id,
                "name": source_id,
                "writeKey": write_key,
                "workspaceId": workspace_id,
                "enabled": enabled,
                "config": {"statsCollection": {"errors": off, "metrics": off}},
                "connections": [],
                "destinations": [],
            }
        }
    )


ROUTES: Final[Routes] = {
    "/v1/merge": Route(MAX_EVENT_BYTES, partial(read_event, "merge")),
    "/beacon/v1/batch": Route(MAX_BATCH_BYTES, read_beacon),
    "/sourceConfig": Page(source_config),
    "/sourceConfig/": Page(source_config),
    **pixel_routes("/pixel/v1"),
}
