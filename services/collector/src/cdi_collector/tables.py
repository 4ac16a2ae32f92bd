"""The collector's tables, as the newest migration leaves them."""

from __future__ import annotations

from sqlalchemy import ARRAY, Boolean, Column, DateTime, Double, ForeignKeyConstraint, Integer, LargeBinary, MetaData, Table, Text

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
    Column("allowed_origins", ARRAY(Text), nullable=False, server_default="{}"),
    # "keep", "truncate" or "drop".
    Column("ip_handling", Text, nullable=False, server_default="keep"),
    # Both null: as the installation says.
    Column("rate_events_per_second", Double),
    Column("rate_burst", Integer),
)

write_keys = Table(
    "write_keys",
    metadata,
    # SHA-256 of the key: unique, so that a key never names two sources.
    Column("key_hash", LargeBinary, primary_key=True),
    Column("workspace_id", Text(collation="C"), nullable=False),
    Column("source_id", Text(collation="C"), nullable=False),
    # Null: it does not end. Afterwards nobody may send with it, and the next change of its source removes it.
    Column("expire_time", DateTime(timezone=True)),
    ForeignKeyConstraint(["workspace_id", "source_id"], ["sources.workspace_id", "sources.source_id"], ondelete="CASCADE"),
)
