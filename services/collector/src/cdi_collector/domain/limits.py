"""What a stranger may send, at most. Sources: Segment's HTTP API for bytes and counts; the rest are CDI's own."""

from __future__ import annotations

from typing import Final

MAX_EVENT_BYTES: Final = 32 * 1024
"""One event: the body of a single-event path, or the event as CDI stores it when it came in a batch."""

MAX_BATCH_BYTES: Final = 500 * 1024
"""The body of a batch, after decompression."""

MAX_LARGE_BATCH_BYTES: Final = 4 * 1024 * 1024
"""The same for clients that know no lower limit: RudderStack's, and PostHog's, which send 100 events of any size at once."""

MAX_RPC_BYTES: Final = 4 * 1024 * 1024
"""One gRPC request."""

MAX_BATCH_EVENTS: Final = 2_500
"""Events of one request."""

MAX_NESTING: Final = 64
"""Levels of objects and arrays within properties, traits, context or integrations."""

MAX_ID_LENGTH: Final = 512
"""Characters of a user, anonymous, group or previous id: what an index of the identity graph takes."""

MAX_NAME_LENGTH: Final = 1_024
"""Characters of an event's name or category."""

MAX_REJECTED_PAYLOAD_BYTES: Final = 64 * 1024
"""Bytes of a refused event that are kept."""

MAX_TRACED_EVENTS: Final = 128
"""Events of one request that get spans of their own, however the caller sampled."""
