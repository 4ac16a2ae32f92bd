"""Postgres: purposes and policies with versions, the ledger and its chain, the decisions in force."""

from cdi_consent.store.ledger import LedgerStore
from cdi_consent.store.purposes import PostgresPurposes

__all__ = ["LedgerStore", "PostgresPurposes"]
