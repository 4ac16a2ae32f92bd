"""Postgres: purposes and policies with versions, the ledger and its chain, the decisions in force; tombstones and privacy requests."""

from cdi_consent.store.fulfilment import PostgresFulfilment
from cdi_consent.store.holdings import PostgresHoldings
from cdi_consent.store.keys import digester_of, signing_key_of
from cdi_consent.store.ledger import LedgerStore
from cdi_consent.store.looks import PostgresLooks, prune
from cdi_consent.store.own_part import PostgresOwnPart
from cdi_consent.store.purposes import PostgresPurposes
from cdi_consent.store.requests import PostgresRequests
from cdi_consent.store.tombstones import PostgresTombstones

__all__ = [
    "LedgerStore",
    "PostgresFulfilment",
    "PostgresHoldings",
    "PostgresLooks",
    "PostgresOwnPart",
    "PostgresPurposes",
    "PostgresRequests",
    "PostgresTombstones",
    "digester_of",
    "prune",
    "signing_key_of",
]
