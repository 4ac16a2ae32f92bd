"""Web hooks of other people's services: is a request theirs, by the signature that it carries, and which event is in its JSON.

Both are told by a rule, so that a new service is a document and not code. ``{timestamp}``, ``{signature}``, ``{body}`` and
``{header:Name}`` are the placeholders of the signature's templates; a value of the mapping is a JSON pointer (RFC 6901) if it starts with
``/``, a header if it starts with ``header:``, a constant otherwise.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

import msgspec

from cdi.error.v1 import error_pb2
from cdi_collector.domain import json_text
from cdi_collector.domain.client_event import ABSENT, ClientEvent, Identifier, nesting_fault
from cdi_collector.domain.json_members import checked_whole, identifier, members_of, object_of, text
from cdi_collector.domain.limits import MAX_NESTING
from cdi_collector.faults import malformed
from cdi_kernel.faults import Unauthenticated

Headers: TypeAlias = Mapping[bytes, bytes]
"""Headers of a request by lower-case name."""

Algorithm: TypeAlias = Literal["sha1", "sha256", "sha512"]
Encoding: TypeAlias = Literal["hex", "base64"]

HEADER: Final = "header:"
CONSENT_PLATFORMS: Final = ("onetrust", "cookiebot")
"""Whose web hooks are consents, by the names under which consent reads them in ``context.consent``."""

_MAX_SIGNATURES: Final = 16
_MAX_SKEW_SECONDS: Final = 300
_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
_decode_items: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode: Final = msgspec.json.Decoder(msgspec.Raw).decode


@dataclass(frozen=True, slots=True)
class SignatureRule:
    """How a service signs its requests.

    Attributes:
        header: that carries the signature.
        template: of its value, for example ``t={timestamp},v1={signature}``. The header may have the parts in any order, others beside
            them, and several signatures, as while a secret is replaced.
        separator: between the parts of template and header.
        signed: what the signature is over, for example ``{timestamp}.{body}``.
        timestamp: where the time is if not in the template, for example ``header:X-Slack-Request-Timestamp``.
        algorithm: of the HMAC.
        encoding: of the signature.
        tolerance_seconds: how far the time may be from now. It is looked at only where there is a time.
        secrets: references ``env:NAME``: the present one, and one that is being replaced.
    """

    header: str
    template: str = "{signature}"
    separator: str = ","
    signed: str = "{body}"
    timestamp: str = ""
    algorithm: Algorithm = "sha256"
    encoding: Encoding = "hex"
    tolerance_seconds: int = _MAX_SKEW_SECONDS
    secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MappingRule:
    """Where the parts of an event are. Empty means absent, but for the properties, where it means the whole body.

    Attributes:
        type: of the event.
        event: its name.
        user_id: who.
        anonymous_id: who, if not known.
        group_id: of a group event.
        message_id: by which a repetition is recognised.
        timestamp: when it happened.
        properties: an object; what is none becomes its member ``data``.
        traits: an object.
        consent: the platform, if the body is a consent: one of ``CONSENT_PLATFORMS``.
    """

    type: str = "track"
    event: str = "webhook"
    user_id: str = ""
    anonymous_id: str = ""
    group_id: str = ""
    message_id: str = ""
    timestamp: str = ""
    properties: str = ""
    traits: str = ""
    consent: str = ""


@dataclass(frozen=True, slots=True)
class WebhookRule:
    """What is known of a service's web hooks.

    Attributes:
        signature: how they are signed; ``None`` if they are not, and whoever knows the address may send.
        mapping: where the event is.
    """

    signature: SignatureRule | None = None
    mapping: MappingRule = field(default_factory=MappingRule)


def verify(rule: SignatureRule, secrets: Sequence[bytes], headers: Headers, body: bytes, now_us: int) -> None:
    """Returns if a request is signed with one of the secrets, and not long ago.

    Args:
        rule: how.
        secrets: the present one, and one that is being replaced.
        headers: of the request.
        body: as it came.
        now_us: microseconds since 1970.

    Raises:
        Unauthenticated: it is not. The message never says which part is wrong.
    """
    found = _signature_parts(rule, headers)
    stamp = found.get("timestamp", [b""])[0] or (_from_header(rule.timestamp, headers) or b"")
    timed = rule.timestamp or "{timestamp}" in rule.template + rule.signed
    if timed and not _is_recent(stamp, now_us, rule.tolerance_seconds):
        raise _not_signed()
    given = [_decoded(rule.encoding, signature) for signature in found.get("signature", ())[:_MAX_SIGNATURES]]
    message = _signed(rule.signed, stamp, headers, body)
    expected = [hmac.digest(secret, message, rule.algorithm) for secret in secrets if secret]
    # Every pair is compared, so that the time says nothing about which one fits.
    if not [True for wanted in expected for signature in given if hmac.compare_digest(wanted, signature)]:
        raise _not_signed()


def map_event(rule: MappingRule, headers: Headers, body: bytes, nobody: str) -> ClientEvent:
    """The event in a request.

    Args:
        rule: where it is.
        headers: of the request.
        body: JSON, as a stranger says.
        nobody: the anonymous id of an event that names nobody.

    Raises:
        Fault: the body is not JSON, or what the rule points to is not what it should be.
    """
    whole, sound = checked_whole(body, MAX_NESTING + 1)
    if not sound and (fault := json_text.check(whole)) is not None:
        raise fault
    found = _Found(headers, _root(whole))
    kind, name = found.text("type", rule.type), found.text("event", rule.event)
    item = ClientEvent(
        type=kind,
        event=name if kind in ("track", "self_describing") else None,
        name=name if kind in ("page", "screen") else None,
        user_id=found.identifier("userId", rule.user_id),
        anonymous_id=found.identifier("anonymousId", rule.anonymous_id),
        group_id=found.identifier("groupId", rule.group_id),
        message_id=found.identifier("messageId", rule.message_id),
        timestamp=found.identifier("timestamp", rule.timestamp),
        properties=_as_object(at(found.root, rule.properties)),
    )
    if rule.traits and (traits := at(found.root, rule.traits)) is not ABSENT:
        object_of("traits", traits)
        item.traits = traits
    if rule.consent:
        item.context = msgspec.Raw(b'{"consent":{"%b":%b}}' % (rule.consent.encode(), bytes(found.root)))
    if item.user_id in (None, "") and item.anonymous_id in (None, ""):
        item.anonymous_id = nobody
    if (nested := nesting_fault(item)) is not None:
        raise nested
    return item


def at(root: msgspec.Raw, pointer: str) -> msgspec.Raw:
    """What a JSON pointer points to in checked JSON; ``ABSENT`` if there is nothing."""
    here = root
    for escaped in pointer.split("/")[1:]:
        token = escaped.replace("~1", "/").replace("~0", "~")
        members = members_of(here)
        if members is not None:
            if token not in members:
                return ABSENT
            here = members[token]
        elif token.isascii() and token.isdigit() and bytes(here)[:1] == b"[":
            items = _decode_items(here)
            if int(token[:9]) >= len(items):
                return ABSENT
            here = items[int(token[:9])]
        else:
            return ABSENT
    return here


@dataclass(frozen=True, slots=True)
class _Found:
    """What the values of a mapping stand for."""

    headers: Headers
    root: msgspec.Raw

    def raw(self, value: str) -> msgspec.Raw | None:
        if value.startswith("/"):
            return at(self.root, value)
        if value.startswith(HEADER):
            given = _from_header(value, self.headers)
            return None if given is None else msgspec.Raw(msgspec.json.encode(given.decode("utf-8", "replace")))
        return msgspec.Raw(msgspec.json.encode(value)) if value else None

    def identifier(self, name: str, value: str) -> Identifier:
        return identifier(name, self.raw(value))

    def text(self, name: str, value: str) -> str | None:
        return text(name, self.raw(value))


def _root(whole: bytes) -> msgspec.Raw:
    try:
        return _decode(whole)
    except (msgspec.DecodeError, RecursionError) as error:
        raise malformed("the body is not JSON") from error


def _as_object(raw: msgspec.Raw) -> msgspec.Raw:
    if raw is ABSENT or bytes(raw)[:1] == b"{":
        return raw
    return msgspec.Raw(msgspec.json.encode({"data": raw}))


def _is_recent(stamp: bytes, now_us: int, tolerance_seconds: int) -> bool:
    # Ten digits are seconds until the year 2286.
    return stamp.isdigit() and len(stamp) <= 10 and abs(int(stamp) - now_us // 1_000_000) <= tolerance_seconds


def _signature_parts(rule: SignatureRule, headers: Headers) -> Mapping[str, list[bytes]]:
    """The values of the template's placeholders in the header, each as often as it is there."""
    parts = [part.strip() for part in headers.get(rule.header.lower().encode(), b"").split(rule.separator.encode())]
    found: dict[str, list[bytes]] = {}
    for wanted in rule.template.split(rule.separator):
        placeholder = _PLACEHOLDER.search(wanted)
        if placeholder is None:
            continue
        before, after = wanted[: placeholder.start()].encode(), wanted[placeholder.end() :].encode()
        for part in parts:
            if part.startswith(before) and part.endswith(after) and len(part) > len(before) + len(after):
                found.setdefault(placeholder[1], []).append(part[len(before) : len(part) - len(after)])
    return found


def _signed(template: str, stamp: bytes, headers: Headers, body: bytes) -> bytes:
    pieces: list[bytes] = []
    end = 0
    for placeholder in _PLACEHOLDER.finditer(template):
        name = placeholder[1]
        value = body if name == "body" else stamp if name == "timestamp" else _from_header(name, headers) or b""
        pieces += (template[end : placeholder.start()].encode(), value)
        end = placeholder.end()
    return b"".join((*pieces, template[end:].encode()))


def _from_header(value: str, headers: Headers) -> bytes | None:
    return headers.get(value[len(HEADER) :].strip().lower().encode()) if value.startswith(HEADER) else None


def _decoded(encoding: Encoding, signature: bytes) -> bytes:
    """The bytes of a signature; empty, which none is, if it cannot be read."""
    try:
        return base64.b64decode(signature, validate=True) if encoding == "base64" else binascii.unhexlify(signature)
    except binascii.Error:
        return b""


def _not_signed() -> Unauthenticated:
    return Unauthenticated(error_pb2.ERROR_REASON_INVALID_SIGNATURE, "the request is not signed as its source asks for")
