"""What warehouses need a purpose for: [[warehouse, rows, [column, ...]], ...], sorted."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Adds it; purposes of before say nothing of warehouses."""
    op.execute("ALTER TABLE purposes ADD COLUMN warehouses json NOT NULL DEFAULT '[]'")
