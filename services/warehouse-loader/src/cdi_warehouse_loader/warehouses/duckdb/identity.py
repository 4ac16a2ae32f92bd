"""The identity graph in the embedded warehouse: its views, and taking over files in which it was only a list of merges.

The rows of the graph say what changed, numbered by ``seq``; a view says how it stands. Nothing is ever rewritten after a merge or a split.
Views name their columns, and the event tables behind them are those that every schema has from the start (each track event is in
``tracks`` too), so tables and columns that appear later change nothing. The macro ``by_person`` looks at its table when it is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from cdi_warehouse_loader.domain import naming
from cdi_warehouse_loader.domain.columns import ColumnType
from cdi_warehouse_loader.warehouses import person_views
from cdi_warehouse_loader.warehouses.duckdb.sql import place, quoted

_PROFILE_MERGES: Final = """
select workspace_id, profile_id, arg_max(canonical_profile_id, seq) as canonical_profile_id,
    arg_max("timestamp", seq) as "timestamp", max(seq) as seq
from {id_graph_updates} group by workspace_id, profile_id"""

# Only of profiles that ever were part of another one: all that a query over events has to keep in memory.
_MERGED: Final = """(
    select workspace_id, profile_id, arg_max(canonical_profile_id, seq) as canonical_profile_id
    from {id_graph_updates}
    semi join (from {id_graph_updates} where canonical_profile_id <> profile_id) using (workspace_id, profile_id)
    group by workspace_id, profile_id
)"""

# Whoever the last row names may have become part of another profile since.
_USER_IDENTIFIERS: Final = """
with latest as (
    select workspace_id, external_id_type, external_id_value, any_value(external_id_hash) as external_id_hash,
        arg_max(profile_id, seq) as profile_id, arg_max(operation, seq) as operation,
        arg_max("timestamp", seq) as "timestamp", max(seq) as seq
    from {external_id_mapping_updates} group by workspace_id, external_id_type, external_id_value
)
select workspace_id, external_id_type, external_id_value, external_id_hash,
    coalesce(m.canonical_profile_id, latest.profile_id) as canonical_profile_id, latest."timestamp", latest.seq
from latest left join {profile_merges} m using (workspace_id, profile_id)
where operation = 'CREATED'"""

# What a profile had while it was part of another one is not its own: the rows of the other one say it.
_USER_TRAITS: Final = """
with latest as (
    select workspace_id, profile_id, name, arg_max_null(value, seq) as value, arg_max_null(event_timestamp, seq) as event_timestamp,
        arg_max_null(triggering_event_id, seq) as triggering_event_id, arg_max("timestamp", seq) as "timestamp", max(seq) as seq
    from {profile_traits_updates} group by workspace_id, profile_id, name
)
select workspace_id, latest.profile_id as canonical_profile_id, name, value, event_timestamp, triggering_event_id,
    latest."timestamp", latest.seq
from latest left join {profile_merges} m using (workspace_id, profile_id)
where value is not null and (m.canonical_profile_id is null or m.canonical_profile_id = latest.profile_id)"""

# Only of profiles whose identifiers have gone different ways: those that held one which was taken from somebody, whatever these were ever
# part of, and profiles that another one is no longer part of. Everywhere else an identifier's person is that of the profile, and the tables
# that a query has to keep in memory stay small. A mapping names the profile of its time; whatever that was part of had the identifier too.
_SEPARATED_IDENTIFIERS: Final = """
with merged as {merged}, part_of as (
    select distinct workspace_id, profile_id, canonical_profile_id from {id_graph_updates} where canonical_profile_id <> profile_id
), taken as (
    select distinct workspace_id, external_id_type, external_id_value from {external_id_mapping_updates} where operation = 'REMOVED'
), holders as (
    select distinct workspace_id, profile_id from {external_id_mapping_updates}
    semi join taken using (workspace_id, external_id_type, external_id_value)
), apart as (
    from holders
    union
    select workspace_id, canonical_profile_id from part_of semi join holders using (workspace_id, profile_id)
    union
    select workspace_id, part_of.canonical_profile_id
    from part_of join merged part using (workspace_id, profile_id)
    left join merged whole
        on whole.workspace_id = part_of.workspace_id and whole.profile_id = part_of.canonical_profile_id
    where part.canonical_profile_id <> coalesce(whole.canonical_profile_id, part_of.canonical_profile_id)
), ever as (
    select workspace_id, external_id_type, external_id_value, profile_id
    from {external_id_mapping_updates} semi join apart using (workspace_id, profile_id)
    union
    select workspace_id, external_id_type, external_id_value, part_of.canonical_profile_id
    from {external_id_mapping_updates} join part_of using (workspace_id, profile_id)
    semi join apart on apart.workspace_id = part_of.workspace_id and apart.profile_id = part_of.canonical_profile_id
), latest as (
    select workspace_id, external_id_type, external_id_value, arg_max(profile_id, seq) as profile_id, arg_max(operation, seq) as operation
    from {external_id_mapping_updates} semi join ever using (workspace_id, external_id_type, external_id_value)
    group by workspace_id, external_id_type, external_id_value
)
select workspace_id, external_id_type, external_id_value, ever.profile_id,
    coalesce(m.canonical_profile_id, latest.profile_id) as canonical_profile_id
from ever join latest using (workspace_id, external_id_type, external_id_value)
left join merged m on m.workspace_id = latest.workspace_id and m.profile_id = latest.profile_id
where latest.operation = 'CREATED'"""

# The separated identifiers are looked up twice and made once.
_SEPARATED: Final = """
with separated as materialized (
    from {separated_identifiers} where external_id_type in ('user_id', 'anonymous_id')
)"""
_PERSON: Final = """
from {rows} e
left join separated u on u.external_id_type = 'user_id' and u.external_id_value = e.user_id
    and u.profile_id = e.profile_id and u.workspace_id = e.workspace_id
    and coalesce(e.demoted_identifiers not like '%"user_id"%', true)
left join separated a on a.external_id_type = 'anonymous_id' and a.external_id_value = e.anonymous_id
    and a.profile_id = e.profile_id and a.workspace_id = e.workspace_id
    and coalesce(e.demoted_identifiers not like '%"anonymous_id"%', true)
left join {merged} m on m.profile_id = e.profile_id and m.workspace_id = e.workspace_id"""
_CANONICAL: Final = """
    coalesce(u.canonical_profile_id, a.canonical_profile_id, m.canonical_profile_id, e.profile_id) as canonical_profile_id"""

_OLD_SEQ: Final = "graph_seq"
_OLD_VIEW: Final = "profiles_canonical"

# The chains of merges, followed once, and a row for those who were merged into: as rows of the graph are since then. The numbers are above
# those of the merges, which were the sequences of their messages, and below those of every later message.
_FOLLOW_CHAINS: Final = """
insert into {id_graph_updates} by name
with recursive latest as (
    select workspace_id, profile_id, arg_max(canonical_profile_id, seq) as canonical_profile_id
    from {id_graph_updates} group by workspace_id, profile_id
), way(workspace_id, profile_id, canonical_profile_id, steps) as (
    select workspace_id, profile_id, canonical_profile_id, 1 from latest
    union all
    select way.workspace_id, way.profile_id, latest.canonical_profile_id, way.steps + 1
    from way join latest on latest.workspace_id = way.workspace_id and latest.profile_id = way.canonical_profile_id
    where way.steps < 100
), ends as (
    select workspace_id, profile_id, arg_max(canonical_profile_id, steps) as canonical_profile_id from way group by workspace_id, profile_id
), standing as (
    from ends union select workspace_id, canonical_profile_id, canonical_profile_id from ends
), newest as (
    select max(seq) as seq, max("timestamp") as "timestamp" from {id_graph_updates}
)
select workspace_id, profile_id, canonical_profile_id, newest."timestamp", now() as loaded_at,
    newest.seq + row_number() over (order by workspace_id, profile_id) as seq
from standing, newest"""

Tables = Mapping[str, Mapping[str, ColumnType]]


def is_old(tables: Tables) -> bool:
    """Whether the tables of a schema are from before identifiers and traits were loaded."""
    return _OLD_SEQ in tables.get(naming.ID_GRAPH_UPDATES, {})


def rename_old(schema: str, tables: Tables) -> Iterable[str]:
    """Makes room: what had a name that is now a view's gets the one that its event leads to from now on."""
    yield f"drop view if exists {place(schema, _OLD_VIEW)}"
    for name in sorted(naming.VIEWS & tables.keys()):
        yield f"alter table {place(schema, name)} rename to {quoted(naming.table_name(name))}"
    yield f"alter table {place(schema, naming.ID_GRAPH_UPDATES)} rename column {quoted(_OLD_SEQ)} to seq"
    yield _FOLLOW_CHAINS.format(**_places(schema))


def views(schema: str) -> Iterable[str]:
    """The views and the macro; their tables exist."""
    places = _places(schema)
    for name, text in (
        (naming.PROFILE_MERGES, _PROFILE_MERGES),
        (naming.USER_IDENTIFIERS, _USER_IDENTIFIERS),
        (naming.USER_TRAITS, _USER_TRAITS),
        (naming.SEPARATED_IDENTIFIERS, _SEPARATED_IDENTIFIERS),
    ):
        yield f"create or replace view {places[name]} as {text.format(**places)}"
    chosen = ", ".join(f"e.{quoted(column)}" for column in person_views.COLUMNS)
    rows = person_views.events(schema, place, quoted, lambda _: "null")
    persons = _PERSON.format(rows=f"({rows})", **places)
    separated = _SEPARATED.format(**places)
    yield f"create or replace view {places[naming.EVENTS_BY_PERSON]} as {separated} select {chosen}, {_CANONICAL} {persons}"
    # The name is put together when the macro is used, in this schema, whatever characters it has.
    table = f"query_table('{quoted(schema)}.\"' || table_name || '\"')"
    yield (
        f"create or replace macro {place(schema, naming.BY_PERSON)}(table_name) as table "
        f"{separated} select e.*, {_CANONICAL} {_PERSON.format(rows=table, **places)}"
    )


def _places(schema: str) -> dict[str, str]:
    places = person_views.places(schema, place)
    return {**places, "merged": _MERGED.format(**places)}
