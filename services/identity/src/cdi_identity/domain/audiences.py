"""Audiences: who belongs to one, and a person's addresses and numbers as the digests that advertising platforms compare.

Sources of the rules, each read in November 2026:

- Meta, "Customer Information Parameters" of the Conversions API
  (developers.facebook.com/docs/marketing-api/conversions-api/parameters/customer-information-parameters):
  ``em`` trimmed and in lower case; ``ph`` without symbols, letters and leading zeros, always with the country code; SHA-256.
- Google, "Format user data" of the Data Manager API (developers.google.com/data-manager/api/devguides/concepts/formatting):
  e-mail in lower case without leading, trailing and intermediate white space, at gmail.com and googlemail.com without dots before the ``@``
  and without ``+`` and what follows it in the local part; phone in E.164 with the plus sign; SHA-256.
- LiveRamp, "Hashing Identifiers" (docs.liveramp.com/connect/en/hashing-identifiers.html):
  e-mail in lower case without any white space, SHA-256 (MD5 and SHA-1 are taken too);
  phone without country code, parentheses and hyphens ("+1 (555) 123-4567" is "5551234567"), SHA-1 only.

Deliberately absent: names, addresses, device ids; guessing the country of a number.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import phonenumbers

from cdi_identity.domain import traits
from cdi_identity.domain.json_values import is_number, same
from cdi_identity.domain.traits import Traits

EMAIL: Final = "email"
PHONE: Final = "phone"
CONTACTS: Final = (EMAIL, PHONE)
"""Types of identifiers, and names of traits, whose values are hashed."""

MAX_CONDITIONS: Final = 20
MAX_PROFILE_IDS: Final = 10_000

MAX_VALUE_LENGTH: Final = 500
"""Characters of an address or number that is looked at."""

_PLUS_ADDRESSED: Final = frozenset({"gmail.com", "googlemail.com"})
_NORTH_AMERICA: Final = 1
_NATIONAL_DIGITS: Final = 10


class Scheme(enum.Enum):
    """Whose normalization."""

    META = enum.auto()
    GOOGLE = enum.auto()
    LIVERAMP = enum.auto()


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on a trait.

    Attributes:
        name: of the trait.
        value: decoded JSON that it has to equal, if ``has_value``; numbers are equal by value, ``true`` is not ``1``.
        has_value: whether there is a value to compare with; otherwise anything but ``null`` will do.
        at_least: at least ``value``, which is a number, in the place of equality.
    """

    name: str
    value: Any = None
    has_value: bool = False
    at_least: bool = False

    @property
    def marker(self) -> bytes:
        """What a document with this trait contains (``traits.to_document``): people without it need not be read."""
        return msgspec.json.encode(self.name) + b":["

    def holds(self, known: Traits) -> bool:
        """Whether it holds for a person."""
        entry = known.get(self.name)
        if entry is None:
            return False
        try:
            found = msgspec.json.decode(entry[1])
        except (msgspec.MsgspecError, RecursionError):
            return False
        if not self.has_value:
            return found is not None
        if self.at_least:
            return is_number(found) and bool(found >= self.value)
        return same(found, self.value)


def selected(documents: Iterable[bytes], conditions: Iterable[Condition]) -> Traits | None:
    """The traits of a person, the newest of the stored documents, if all conditions hold for them."""
    known = traits.combined(documents)
    return known if all(condition.holds(known) for condition in conditions) else None


def contacts(identifiers: Iterable[tuple[str, str]], known: Traits) -> dict[str, list[str]]:
    """The addresses and numbers of a person: identifiers, then the traits of these names; each once.

    Args:
        identifiers: as type and value; other types are ignored.
        known: the person's traits; a number that is no text counts as its digits.
    """
    found: dict[str, dict[str, None]] = {kind: {} for kind in CONTACTS}
    for kind, value in identifiers:
        if kind in found:
            found[kind][value] = None
    for kind, values in found.items():
        if (text := _text(known, kind)) is not None:
            values[text] = None
    return {kind: list(values) for kind, values in found.items()}


def _text(known: Traits, name: str) -> str | None:
    if name not in known:
        return None
    try:
        value = msgspec.json.decode(known[name][1])
    except (msgspec.MsgspecError, RecursionError):
        return None
    return str(value) if type(value) in (str, int) else None


def digests(contact: Mapping[str, Iterable[str]], scheme: Scheme, country: str) -> list[tuple[str, str]]:
    """What leaves the house of a person: kind of digest and its lower-case hexadecimal text, each once, e-mail first.

    Args:
        contact: from ``contacts``.
        scheme: whose rules.
        country: of numbers without country code, ISO 3166-1 alpha-2; empty: those are left out.
    """
    found: dict[tuple[str, str], None] = {}
    for address in contact.get(EMAIL, ()):
        if (email := normalized_email(address, scheme)) is not None:
            found["email_sha256", hashlib.sha256(email.encode()).hexdigest()] = None
    for given in contact.get(PHONE, ()):
        if (number := normalized_phone(given, scheme, country)) is None:
            continue
        if scheme is Scheme.LIVERAMP:
            found["phone_sha1", hashlib.sha1(number.encode(), usedforsecurity=False).hexdigest()] = None
        else:
            found["phone_sha256", hashlib.sha256(number.encode()).hexdigest()] = None
    return list(found)


def normalized_email(address: str, scheme: Scheme) -> str | None:
    """An address by the rules of a scheme (module docstring); ``None`` if it is none: not one ``@`` between a name and a domain."""
    if len(address) > MAX_VALUE_LENGTH:
        return None
    lowered = address.lower()
    text = lowered.strip() if scheme is Scheme.META else "".join(lowered.split())
    local, _, domain = text.partition("@")
    if scheme is Scheme.GOOGLE and domain in _PLUS_ADDRESSED:
        local = local.partition("+")[0].replace(".", "")
    if not local or "." not in domain.strip(".") or "@" in domain or " " in text or not text.isprintable():
        return None
    return f"{local}@{domain}"


def normalized_phone(given: str, scheme: Scheme, country: str) -> str | None:
    """A number by the rules of a scheme (module docstring); ``None`` if it is none, or has no country code and there is no ``country``."""
    number = _parsed(given, country)
    if number is None:
        return None
    if scheme is Scheme.LIVERAMP:
        national = phonenumbers.national_significant_number(number)
        return national if number.country_code == _NORTH_AMERICA and len(national) == _NATIONAL_DIGITS else None
    e164: str = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    return e164.removeprefix("+") if scheme is Scheme.META else e164


def is_country(country: str) -> bool:
    """Whether numbers of a country (ISO 3166-1 alpha-2, upper case) can be read."""
    return country in phonenumbers.SUPPORTED_REGIONS


def _parsed(given: str, country: str) -> phonenumbers.PhoneNumber | None:
    if len(given) > MAX_VALUE_LENGTH:
        return None
    try:
        number = phonenumbers.parse(given, country or None)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_possible_number(number):
        return None
    if (
        number.italian_leading_zero
        and phonenumbers.parse(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)) != number
    ):
        # Zeros that a country does not write: read again it would be another number.
        return None
    return number
