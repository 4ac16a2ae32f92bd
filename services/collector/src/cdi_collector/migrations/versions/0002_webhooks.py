"""How the web hooks of a source are signed and read."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("sources", sa.Column("webhook", sa.LargeBinary))
