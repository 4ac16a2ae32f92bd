"""How good an e-mail address is, from the address alone: no look-up leaves the process."""

from __future__ import annotations

import re
from functools import lru_cache

from disposable_email_domains import blocklist
from email_validator import EmailNotValidError, validate_email

from cdi.event.v1 import event_pb2
from cdi_enrichment.enrichers.base import ReferenceFiles, Subject
from cdi_enrichment.reference.mail_domains import FREE_PROVIDERS, ROLE_ACCOUNTS

_CACHED_DOMAINS = 4_096
_MAX_ADDRESS = 254  # RFC 5321, 4.5.3.1.3
_DOT_ATOM = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*", re.IGNORECASE | re.ASCII)
_MAX_LOCAL_PART = 64


class EmailQualityEnricher:
    """Judges each address once; domains, which repeat more, have a cache of their own."""

    remembered = 8_192

    def __init__(self, _: ReferenceFiles) -> None:
        return

    def key(self, subject: Subject) -> str | None:
        """The address, cut where it is too long in any case."""
        return subject.email[: _MAX_ADDRESS + 1] if subject.email else None

    def find(self, key: str) -> event_pb2.EmailQuality:
        """What an address is like, good or bad."""
        local, _, domain = key.rpartition("@")
        if not _is_valid(key, local, domain):
            return event_pb2.EmailQuality()
        return event_pb2.EmailQuality(
            valid_syntax=True,
            disposable=_is_disposable(domain),
            role_account=local.partition("+")[0] in ROLE_ACCOUNTS,
            free_provider=domain in FREE_PROVIDERS,
        )


def _is_valid(address: str, local: str, domain: str) -> bool:
    """As ``validate_email`` says. A plain local part is judged here, because the full check takes 100 µs."""
    if len(address) <= _MAX_ADDRESS and len(local) <= _MAX_LOCAL_PART and _DOT_ATOM.fullmatch(local):
        return _is_valid_domain(domain)
    return _validates(address)


@lru_cache(maxsize=_CACHED_DOMAINS)
def _is_valid_domain(domain: str) -> bool:
    return _validates(f"a@{domain}")


def _validates(address: str) -> bool:
    try:
        validate_email(address, check_deliverability=False)
    except EmailNotValidError:
        return False
    return True


def _is_disposable(domain: str) -> bool:
    """Whether the domain or one of its parents is on the list."""
    rest = domain
    while "." in rest:
        if rest in blocklist:
            return True
        _, _, rest = rest.partition(".")
    return False
