"""Sources and the hashes of their write keys."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "sources",
        sa.Column("workspace_id", sa.Text(collation="C"), primary_key=True),
        sa.Column("source_id", sa.Text(collation="C"), primary_key=True),
        sa.Column("disabled", sa.Boolean, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
    )
    op.create_table(
        "write_keys",
        sa.Column("key_hash", sa.LargeBinary, primary_key=True),
        sa.Column("workspace_id", sa.Text(collation="C"), nullable=False),
        sa.Column("source_id", sa.Text(collation="C"), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id", "source_id"], ["sources.workspace_id", "sources.source_id"], ondelete="CASCADE"),
    )
    op.create_index("write_keys_of_source", "write_keys", ["workspace_id", "source_id"])
