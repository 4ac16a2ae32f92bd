"""What makes the web hook of a source document valid."""

from __future__ import annotations

import re
from dataclasses import astuple
from typing import Final

from cdi_collector.domain.webhooks import CONSENT_PLATFORMS, HEADER, MappingRule, SignatureRule, WebhookRule

_TYPES: Final = ("track", "identify", "page", "screen", "group")
_NAME: Final = re.compile(r"[A-Za-z0-9-]{1,100}")
_REFERENCE: Final = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*")
_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
_MAX_LENGTH: Final = 256
_MAX_SECRETS: Final = 4
_MAX_TOLERANCE_SECONDS: Final = 86_400


def violations(rule: WebhookRule) -> list[tuple[str, str]]:
    """Pairs of a field and what is wrong with it."""
    wrong = [] if rule.signature is None else _of_signature(rule.signature)
    return [(f"source.webhook.{field}", text) for field, text in (*wrong, *_of_mapping(rule.mapping))]


def _of_signature(rule: SignatureRule) -> list[tuple[str, str]]:
    wrong: list[tuple[str, str]] = []
    if not _NAME.fullmatch(rule.header):
        wrong.append(("signature.header", "the name of a header"))
    parts = _PLACEHOLDER.findall(rule.template)
    if parts.count("signature") != 1 or not set(parts) <= {"signature", "timestamp"}:
        wrong.append(("signature.template", "{signature} once, and no other placeholder than {timestamp}"))
    elif any(len(_PLACEHOLDER.findall(part)) > 1 for part in rule.template.split(rule.separator)):
        wrong.append(("signature.template", "at most one placeholder between two separators"))
    signed = _PLACEHOLDER.findall(rule.signed)
    if "body" not in signed or not all(name in ("body", "timestamp") or _is_header(name) for name in signed):
        wrong.append(("signature.signed", "{body}, and no other placeholders than {timestamp} and {header:Name}"))
    if rule.timestamp and not _is_header(rule.timestamp):
        wrong.append(("signature.timestamp", "header:Name"))
    if "timestamp" in signed and "timestamp" not in parts and not rule.timestamp:
        wrong.append(("signature.timestamp", "the signature is over a time that is nowhere"))
    elif ("timestamp" in parts or rule.timestamp) and "timestamp" not in signed:
        wrong.append(("signature.signed", "a time that is not signed says nothing"))
    if not 1 <= len(rule.secrets) <= _MAX_SECRETS or not all(map(_REFERENCE.fullmatch, rule.secrets)):
        wrong.append(("signature.secrets", f"1 to {_MAX_SECRETS} references env:NAME"))
    if rule.tolerance_seconds > _MAX_TOLERANCE_SECONDS:
        wrong.append(("signature.tolerance_seconds", f"at most {_MAX_TOLERANCE_SECONDS}"))
    if any(len(text) > _MAX_LENGTH for text in (rule.template, rule.separator, rule.signed, rule.timestamp)):
        wrong.append(("signature", f"at most {_MAX_LENGTH} characters each"))
    return wrong


def _of_mapping(rule: MappingRule) -> list[tuple[str, str]]:
    wrong: list[tuple[str, str]] = []
    if rule.type not in _TYPES and not rule.type.startswith("/") and not _is_header(rule.type):
        wrong.append(("mapping.type", f"one of {', '.join(_TYPES)}, a pointer, or header:Name"))
    if rule.consent and rule.consent not in CONSENT_PLATFORMS:
        wrong.append(("mapping.consent", f"one of {', '.join(CONSENT_PLATFORMS)}"))
    for field, value in (("properties", rule.properties), ("traits", rule.traits)):
        if value and not value.startswith("/"):
            wrong.append((f"mapping.{field}", "a JSON pointer"))
    if any(len(value) > _MAX_LENGTH for value in astuple(rule)):
        wrong.append(("mapping", f"at most {_MAX_LENGTH} characters each"))
    return wrong


def _is_header(value: str) -> bool:
    return value.startswith(HEADER) and _NAME.fullmatch(value[len(HEADER) :]) is not None
