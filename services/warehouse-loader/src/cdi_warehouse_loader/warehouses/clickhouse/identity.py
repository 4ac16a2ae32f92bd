"""The identity graph in ClickHouse: its views.

The rows of the graph say what changed, numbered by ``seq``; a view says how it stands. Nothing is ever rewritten after a merge or a split.
Views name their columns, and the event tables behind them are those that every schema has from the start, so tables and columns that appear
later change nothing. There is no ``by_person(table)``: a view of ClickHouse cannot be told a table's name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from cdi_warehouse_loader.domain import naming
from cdi_warehouse_loader.warehouses import person_views
from cdi_warehouse_loader.warehouses.clickhouse.sql import AS_ELSEWHERE, TYPES, place, quoted

_PROFILE_MERGES: Final = """
select g.workspace_id as workspace_id, g.profile_id as profile_id, argMax(g.canonical_profile_id, g.seq) as canonical_profile_id,
    argMax(g.`timestamp`, g.seq) as `timestamp`, max(g.seq) as seq
from {id_graph_updates} as g final group by g.workspace_id, g.profile_id"""

# Only of profiles that ever were part of another one: all that a query over events has to keep in memory.
_MERGED: Final = """
    select g.workspace_id as workspace_id, g.profile_id as profile_id, argMax(g.canonical_profile_id, g.seq) as canonical_profile_id
    from {id_graph_updates} as g final
    where (g.workspace_id, g.profile_id) in (
        select workspace_id, profile_id from {id_graph_updates} final where canonical_profile_id <> profile_id)
    group by g.workspace_id, g.profile_id"""

# Whoever the last row names may have become part of another profile since.
_USER_IDENTIFIERS: Final = """
with latest as (
    select u.workspace_id as workspace_id, u.external_id_type as external_id_type, u.external_id_value as external_id_value,
        any(u.external_id_hash) as external_id_hash, argMax(u.profile_id, u.seq) as profile_id, argMax(u.operation, u.seq) as operation,
        argMax(u.`timestamp`, u.seq) as `timestamp`, max(u.seq) as seq
    from {external_id_mapping_updates} as u final group by u.workspace_id, u.external_id_type, u.external_id_value
)
select l.workspace_id as workspace_id, l.external_id_type as external_id_type, l.external_id_value as external_id_value,
    l.external_id_hash as external_id_hash, coalesce(m.canonical_profile_id, l.profile_id) as canonical_profile_id,
    l.`timestamp` as `timestamp`, l.seq as seq
from latest as l left join {profile_merges} as m on m.workspace_id = l.workspace_id and m.profile_id = l.profile_id
where l.operation = 'CREATED'"""

# What a profile had while it was part of another one is not its own: the rows of the other one say it. A tuple keeps a NULL that is the
# newest value, which argMax alone would leave out.
_USER_TRAITS: Final = """
with latest as (
    select u.workspace_id as workspace_id, u.profile_id as profile_id, u.name as name,
        argMax(tuple(u.value, u.event_timestamp, u.triggering_event_id, u.`timestamp`), u.seq) as newest, max(u.seq) as seq
    from {profile_traits_updates} as u final group by u.workspace_id, u.profile_id, u.name
)
select l.workspace_id as workspace_id, l.profile_id as canonical_profile_id, l.name as name, l.newest.1 as value,
    l.newest.2 as event_timestamp, l.newest.3 as triggering_event_id, l.newest.4 as `timestamp`, l.seq as seq
from latest as l left join {profile_merges} as m on m.workspace_id = l.workspace_id and m.profile_id = l.profile_id
where l.newest.1 is not null and (m.canonical_profile_id is null or m.canonical_profile_id = l.profile_id)"""

# Only of profiles whose identifiers have gone different ways: those that held one which was taken from somebody, whatever these were ever
# part of, and profiles that another one is no longer part of. Everywhere else an identifier's person is that of the profile, and the tables
# that a query has to keep in memory stay small. A mapping names the profile of its time; whatever that was part of had the identifier too.
_SEPARATED_IDENTIFIERS: Final = """
with merged as ({merged}), part_of as (
    select distinct workspace_id, profile_id, canonical_profile_id from {id_graph_updates} final where canonical_profile_id <> profile_id
), taken as (
    select distinct workspace_id, external_id_type, external_id_value from {external_id_mapping_updates} final where operation = 'REMOVED'
), holders as (
    select distinct workspace_id, profile_id from {external_id_mapping_updates} final
    where (workspace_id, external_id_type, external_id_value) in (select workspace_id, external_id_type, external_id_value from taken)
), apart as (
    select workspace_id, profile_id from holders
    union distinct
    select workspace_id, canonical_profile_id as profile_id from part_of
    where (workspace_id, profile_id) in (select workspace_id, profile_id from holders)
    union distinct
    select p.workspace_id as workspace_id, p.canonical_profile_id as profile_id
    from part_of as p join merged as part on part.workspace_id = p.workspace_id and part.profile_id = p.profile_id
    left join merged as whole on whole.workspace_id = p.workspace_id and whole.profile_id = p.canonical_profile_id
    where part.canonical_profile_id <> coalesce(whole.canonical_profile_id, p.canonical_profile_id)
), ever as (
    select workspace_id, external_id_type, external_id_value, profile_id from {external_id_mapping_updates} final
    where (workspace_id, profile_id) in (select workspace_id, profile_id from apart)
    union distinct
    select u.workspace_id as workspace_id, u.external_id_type as external_id_type, u.external_id_value as external_id_value,
        p.canonical_profile_id as profile_id
    from {external_id_mapping_updates} as u final join part_of as p on p.workspace_id = u.workspace_id and p.profile_id = u.profile_id
    where (p.workspace_id, p.canonical_profile_id) in (select workspace_id, profile_id from apart)
), latest as (
    select u.workspace_id as workspace_id, u.external_id_type as external_id_type, u.external_id_value as external_id_value,
        argMax(u.profile_id, u.seq) as profile_id, argMax(u.operation, u.seq) as operation
    from {external_id_mapping_updates} as u final
    where (u.workspace_id, u.external_id_type, u.external_id_value) in (
        select workspace_id, external_id_type, external_id_value from ever)
    group by u.workspace_id, u.external_id_type, u.external_id_value
)
select e.workspace_id as workspace_id, e.external_id_type as external_id_type, e.external_id_value as external_id_value,
    e.profile_id as profile_id, coalesce(m.canonical_profile_id, l.profile_id) as canonical_profile_id
from ever as e
join latest as l
    on l.workspace_id = e.workspace_id and l.external_id_type = e.external_id_type and l.external_id_value = e.external_id_value
left join merged as m on m.workspace_id = l.workspace_id and m.profile_id = l.profile_id
where l.operation = 'CREATED'"""

_PERSON: Final = """
from ({rows}) as e
left join (select * from {separated_identifiers} where external_id_type = 'user_id') as u
    on u.external_id_value = e.user_id and u.profile_id = e.profile_id and u.workspace_id = e.workspace_id
left join (select * from {separated_identifiers} where external_id_type = 'anonymous_id') as a
    on a.external_id_value = e.anonymous_id and a.profile_id = e.profile_id and a.workspace_id = e.workspace_id
left join ({merged}) as m on m.profile_id = e.profile_id and m.workspace_id = e.workspace_id"""
_CANONICAL: Final = """
    coalesce(
        if(ifNull(e.demoted_identifiers like '%"user_id"%', 0), null, u.canonical_profile_id),
        if(ifNull(e.demoted_identifiers like '%"anonymous_id"%', 0), null, a.canonical_profile_id),
        m.canonical_profile_id, e.profile_id) as canonical_profile_id"""


def views(schema: str) -> Iterable[str]:
    """The views; their tables exist."""
    places = person_views.places(schema, place)
    places["merged"] = _MERGED.format(**places)
    for name, text in (
        (naming.PROFILE_MERGES, _PROFILE_MERGES),
        (naming.USER_IDENTIFIERS, _USER_IDENTIFIERS),
        (naming.USER_TRAITS, _USER_TRAITS),
        (naming.SEPARATED_IDENTIFIERS, _SEPARATED_IDENTIFIERS),
    ):
        yield f"create or replace view {places[name]} as {text.format(**places)} {AS_ELSEWHERE}"
    chosen = ", ".join(f"e.{quoted(column)} as {quoted(column)}" for column in person_views.COLUMNS)
    rows = person_views.events(schema, _newest, quoted, lambda kind: f"cast(null as Nullable({TYPES[kind]}))")
    persons = _PERSON.format(rows=rows, **places)
    yield f"create or replace view {places[naming.EVENTS_BY_PERSON]} as select {chosen}, {_CANONICAL} {persons} {AS_ELSEWHERE}"


def _newest(schema: str, table: str) -> str:
    return f"{place(schema, table)} final"
