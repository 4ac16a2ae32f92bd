"""Whose event it is, for order.

Order is kept per partition key, ``workspace + (anonymous_id or user_id or message_id)``, because that is what fixes the partition: events
under one key are in one partition and so in one order. Events of one profile under different keys may lie in different partitions.
"""

from __future__ import annotations

import xxhash

from cdi.event.v1.event_pb2 import Event


def person_of(event: Event) -> bytes:
    """16 bytes that stand for the person. Two people who share them by accident merely wait for each other."""
    key = event.anonymous_id or event.user_id or event.message_id
    return xxhash.xxh3_128_digest(f"{event.workspace_id}\x1f{key}".encode())
