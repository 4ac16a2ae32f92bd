"""Who may send to a source and how fast, what is kept of them, and when a write key ends."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("sources", sa.Column("allowed_origins", sa.ARRAY(sa.Text), nullable=False, server_default="{}"))
    op.add_column("sources", sa.Column("ip_handling", sa.Text, nullable=False, server_default="keep"))
    op.add_column("sources", sa.Column("rate_events_per_second", sa.Double))
    op.add_column("sources", sa.Column("rate_burst", sa.Integer))
    op.add_column("write_keys", sa.Column("expire_time", sa.DateTime(timezone=True)))
