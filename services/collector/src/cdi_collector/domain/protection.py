"""What a source says about who may send and what is kept of them: origins, addresses, the rate."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import msgspec

from cdi_collector.domain.client_event import ABSENT, ClientEvent
from cdi_collector.domain.client_ip import without_host_part
from cdi_collector.domain.rate_limit import MAX_EVENTS_PER_SECOND, RateLimit

IpHandling: TypeAlias = Literal["keep", "truncate", "drop"]

_ORIGIN: Final = re.compile(r"null|[a-z][a-z0-9+.-]{0,31}://(\*\.)?[a-z0-9_.:\[\]-]{1,255}")
_WILDCARD: Final = "://*."
_MAX_ORIGINS: Final = 100
_NAMED: Final = (("context", "ip"), ("context", "$ip"), ("properties", "$ip"))
_ADDRESSES: Final = (b'"ip"', b'"$ip"', b"\\u")
_decode_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@dataclass(frozen=True, slots=True)
class Protection:
    """The rules of one source.

    Attributes:
        allowed_origins: pages that may send, sorted; a host may start with ``*.``. Empty: all may.
        ip_handling: what is kept of a client's address.
        rate_limit: how fast events may come; ``None``: as the installation says.
    """

    allowed_origins: tuple[str, ...] = ()
    ip_handling: IpHandling = "keep"
    rate_limit: RateLimit | None = None

    def admits(self, origin: str) -> bool:
        """Whether a page may send."""
        if not self.allowed_origins:
            return True
        origin = origin.lower()
        return any(_matches(allowed, origin) for allowed in self.allowed_origins)


UNPROTECTED: Final = Protection()


def kept_address(handling: IpHandling, address: str) -> str:
    """What is kept of an address."""
    if handling == "keep":
        return address
    return without_host_part(address) if handling == "truncate" else ""


def hide_addresses(handling: IpHandling, item: ClientEvent) -> None:
    """Does to the addresses that an event names itself, ``ip`` of its context and ``$ip``, what is done to that of the request."""
    for field, member in _NAMED:
        raw = getattr(item, field)
        if raw is not ABSENT:
            setattr(item, field, msgspec.Raw(_hidden(handling, member, bytes(raw))))


def hidden_in_payload(handling: IpHandling, payload: bytes) -> bytes:
    """A refused event without what may not be kept of addresses, Snowplow's ``ip`` too; what is no JSON object is not looked into."""
    payload = _hidden(handling, "ip", payload)
    for field, member in _NAMED:
        with contextlib.suppress(msgspec.DecodeError, RecursionError):
            members = _decode_object(payload)
            if field in members and (hidden := _hidden(handling, member, before := bytes(members[field]))) != before:
                payload = msgspec.json.encode(members | {field: msgspec.Raw(hidden)})
    return payload


def violations(protection: Protection) -> list[tuple[str, str]]:
    """The rules of a source document that its protection breaks: fields and what is wrong with them."""
    wrong: list[tuple[str, str]] = []
    origins = protection.allowed_origins
    if len(origins) > _MAX_ORIGINS or not all(_ORIGIN.fullmatch(origin) for origin in origins):
        wrong.append(("source.allowed_origins", f"at most {_MAX_ORIGINS} of the form scheme://host or scheme://host:port, or null"))
    if (limit := protection.rate_limit) is not None and not 0.001 <= limit.events_per_second <= MAX_EVENTS_PER_SECOND:
        wrong.append(("source.rate_limit.events_per_second", f"0.001 to {MAX_EVENTS_PER_SECOND}"))
    return wrong


def _matches(allowed: str, origin: str) -> bool:
    if _WILDCARD not in allowed:
        return origin == allowed
    scheme, _, domain = allowed.partition(_WILDCARD)
    return origin.startswith(f"{scheme}://") and origin.endswith(f".{domain}")


def _hidden(handling: IpHandling, member: str, text: bytes) -> bytes:
    # Only an object with the name in it, or with escapes that may spell it, is taken apart.
    if not any(sign in text for sign in _ADDRESSES):
        return text
    with contextlib.suppress(msgspec.DecodeError, RecursionError):
        members = _decode_object(text)
        if member not in members:
            return text
        kept = kept_address(handling, _text(members.pop(member)))
        return msgspec.json.encode({**members, member: kept} if kept else members)
    return text


def _text(raw: msgspec.Raw) -> str:
    with contextlib.suppress(msgspec.DecodeError):
        return msgspec.json.decode(raw, type=str)
    return ""
