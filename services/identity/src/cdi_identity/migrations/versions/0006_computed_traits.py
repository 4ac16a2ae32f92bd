"""Computed traits: definitions, what events gave to them, and the values of persons."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A row per version of a definition; a retired one stays until everything that was counted by it is gone. What SQL has to know of a
    # definition stands in columns of its own; window_us is NULL without a window.
    op.execute(
        """
        CREATE TABLE computed_traits (
            trait_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            workspace_id text COLLATE "C" NOT NULL,
            name text COLLATE "C" NOT NULL,
            version integer NOT NULL,
            aggregation smallint NOT NULL,
            window_us bigint,
            retired boolean NOT NULL DEFAULT false,
            filled boolean NOT NULL DEFAULT false,
            fill_error text NOT NULL DEFAULT '',
            document bytea NOT NULL
        )
        """
    )
    op.execute("CREATE UNIQUE INDEX computed_traits_by_name ON computed_traits (workspace_id, name) WHERE NOT retired")
    # One row per event and definition that it gives to: what was counted is not counted again. Where the definition has a window, the row
    # says what is to be taken away when the event leaves it; without one the tally has it, and the rest is NULL.
    # profile_id is the profile that the event's strongest identifier was first seen on: a merge moves nothing. fingerprint is of that
    # identifier, as for traits: what leaves with it when it is split off.
    op.execute(
        """
        CREATE TABLE contributions (
            profile_id uuid,
            fingerprint bigint,
            event_time timestamptz,
            trait_id integer NOT NULL,
            message_id text COLLATE "C" NOT NULL,
            value text COLLATE "C",
            PRIMARY KEY (trait_id, message_id)
        )
        """
    )
    op.execute("CREATE INDEX contributions_of_profile ON contributions (profile_id, trait_id) WHERE profile_id IS NOT NULL")
    # What the events of one identifier come to. value is empty where the aggregation does not tell values apart; amount is a sum, a least
    # or a greatest number; edge is time, message id and value of the first or the last event.
    op.execute(
        """
        CREATE TABLE tallies (
            profile_id uuid NOT NULL,
            fingerprint bigint NOT NULL,
            number bigint NOT NULL,
            trait_id integer NOT NULL,
            aggregation smallint NOT NULL,
            value text COLLATE "C" NOT NULL,
            amount numeric,
            edge text[] COLLATE "C",
            PRIMARY KEY (profile_id, trait_id, fingerprint, value)
        ) WITH (fillfactor = 85)
        """
    )
    op.execute("CREATE INDEX tallies_of_trait ON tallies (trait_id)")
    # profile_id is canonical. due_time is when something leaves the window; NULL without a window.
    op.execute(
        """
        CREATE TABLE computed_values (
            profile_id uuid NOT NULL,
            update_time timestamptz NOT NULL,
            due_time timestamptz,
            trait_id integer NOT NULL,
            value text COLLATE "C" NOT NULL,
            PRIMARY KEY (profile_id, trait_id)
        ) WITH (fillfactor = 90)
        """
    )
    op.execute("CREATE INDEX computed_values_due ON computed_values (due_time) WHERE due_time IS NOT NULL")


def downgrade() -> None:
    op.execute("DROP TABLE computed_values, tallies, contributions, computed_traits")
