"""The collector's tables, as the newest migration leaves them."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, ForeignKeyConstraint, Integer, LargeBinary, MetaData, Table, Text

metadata = MetaData()

sources = Table(
    "sources",
    metadata,
    Column("workspace_id", Text(collation="C"), primary_key=True),
    Column("source_id", Text(collation="C"), primary_key=True),
    Column("disabled", Boolean, nullable=False),
    Column("version", Integer, nullable=False),
    # cdi.collector.v1.Webhook; null: nothing is said about web hooks.
    Column("webhook", LargeBinary),
)

write_keys = Table(
    "write_keys",
    metadata,
    # SHA-256 of the key: unique, so that a key never names two sources.
    Column("key_hash", LargeBinary, primary_key=True),
    Column("workspace_id", Text(collation="C"), nullable=False),
    Column("source_id", Text(collation="C"), nullable=False),
    ForeignKeyConstraint(["workspace_id", "source_id"], ["sources.workspace_id", "sources.source_id"], ondelete="CASCADE"),
)
