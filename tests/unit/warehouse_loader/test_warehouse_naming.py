"""Names of tables and columns: Segment's rules, and that nothing ever lands in a table or column of another kind."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cdi_warehouse_loader.domain import naming
from cdi_warehouse_loader.domain.layout import CONTEXT_NAMES, PROPERTY_NAMES, SIGNAL_COLUMNS, STARTING_TABLES, VIEW_NAMES


@pytest.mark.parametrize(
    ("event", "table"),
    [
        ("Order Completed", "order_completed"),
        ("orderCompleted", "order_completed"),
        ("HTMLPage Viewed", "html_page_viewed"),
        ("  Signed-Up!! ", "signed_up"),
        ("2nd Visit", "_2nd_visit"),
        ("Order", "_order"),
        ("Größe Gewählt", "größe_gewählt"),
        ("购买", "购买"),
        ("Users", "event_users"),
        ("Tracks", "event_tracks"),
        ("Rejected Events", "event_rejected_events"),
        ("Event Users", "event_event_users"),
        ("Event Booked", "event_booked"),
    ],
)
def test_event_tables(event: str, table: str) -> None:
    assert naming.table_name(event) == table


@pytest.mark.parametrize(
    ("path", "column"),
    [
        ("orderId", "order_id"),
        ("address.postalCode", "address_postal_code"),
        ("id", "_id"),
        ("_id", "__id"),
        ("received_at", "_received_at"),
        ("geo_country", "_geo_country"),
        ("context_ip", "_context_ip"),
        ("select", "_select"),
        ("1st", "_1st"),
        ("name", "name"),
    ],
)
def test_property_columns(path: str, column: str) -> None:
    assert PROPERTY_NAMES[path] == column


def test_a_page_keeps_its_own_name_beside_the_property() -> None:
    assert VIEW_NAMES["name"] == "_name"


def test_context_columns() -> None:
    assert CONTEXT_NAMES["page.url"] == "context_page_url"
    assert CONTEXT_NAMES["userAgent"] == "context_user_agent"


def test_names_of_which_nothing_is_left_stay_apart() -> None:
    names = {naming.table_name(text) for text in ("!!!", "🎉", "", "___")}
    assert len(names) == 4
    assert all(name.startswith("event_") for name in names)


@given(st.text(max_size=200))
def test_every_event_name_gives_a_table_of_its_own_kind(event: str) -> None:
    table = naming.table_name(event)
    assert table
    assert table not in naming.VIEWS
    assert table not in STARTING_TABLES
    assert len(table.encode()) <= naming.MAX_NAME_BYTES
    assert not table[0].isdigit()


@given(st.text(max_size=200))
def test_every_property_name_gives_a_column_beside_the_tables_own(path: str) -> None:
    column = PROPERTY_NAMES[path]
    assert column
    assert column not in STARTING_TABLES[naming.TRACKS]
    assert not column.startswith("context_")
    assert len(column.encode()) <= naming.MAX_NAME_BYTES


@given(st.text(max_size=200))
@example("bot")
@example("do.not.track")
@example("_globalPrivacyControl")
def test_every_context_value_gives_a_column_beside_those_of_signals(path: str) -> None:
    column = CONTEXT_NAMES[path]
    assert column.startswith("context_")
    assert column not in SIGNAL_COLUMNS
    assert len(column.encode()) <= naming.MAX_NAME_BYTES


@given(st.text(min_size=60, max_size=80, alphabet="ab"), st.text(min_size=60, max_size=80, alphabet="ab"))
def test_long_names_differ_when_the_originals_do(one: str, other: str) -> None:
    assert (PROPERTY_NAMES[one] == PROPERTY_NAMES[other]) == (one == other)


@given(st.text(max_size=200))
def test_a_name_in_snake_case_is_what_it_is_in_snake_case(text: str) -> None:
    assert naming.snake(naming.snake(text)) == naming.snake(text)
    column = PROPERTY_NAMES[text]
    if not column.startswith("_"):  # a name that stands aside for another one stands further aside each time
        assert PROPERTY_NAMES[column] == column


@given(st.lists(st.text(max_size=90), min_size=2, max_size=6, unique_by=naming.snake))
def test_names_that_differ_in_more_than_case_and_punctuation_have_columns_of_their_own(paths: list[str]) -> None:
    bare = {naming.snake(path).strip("_") for path in paths}
    if len(bare) == len(paths) and "" not in bare:
        assert len({PROPERTY_NAMES[path] for path in paths}) == len(paths)
