"""The identity graph in a warehouse in Postgres: its views.

They say what those of the embedded warehouse say (``warehouses.duckdb.identity`` has the reasons); one plain model holds both to it. There
is no ``by_person(table)``: no function of Postgres can add a column to the rows of whichever table it is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import xxhash

from cdi_warehouse_loader.domain import naming
from cdi_warehouse_loader.warehouses import person_views
from cdi_warehouse_loader.warehouses.postgresql.sql import TYPES, place, quoted

_PROFILE_MERGES: Final = """
select distinct on (workspace_id, profile_id) workspace_id, profile_id, canonical_profile_id, "timestamp", seq
from {id_graph_updates} order by workspace_id, profile_id, seq desc"""

# Only of profiles that ever were part of another one: all that a query over events has to keep in memory.
_MERGED: Final = """(
    select distinct on (workspace_id, profile_id) workspace_id, profile_id, canonical_profile_id from {id_graph_updates}
    where (workspace_id, profile_id) in (
        select workspace_id, profile_id from {id_graph_updates} where canonical_profile_id <> profile_id)
    order by workspace_id, profile_id, seq desc
)"""

_USER_IDENTIFIERS: Final = """
with latest as (
    select distinct on (workspace_id, external_id_type, external_id_value) workspace_id, external_id_type, external_id_value,
        external_id_hash, profile_id, operation, "timestamp", seq
    from {external_id_mapping_updates} order by workspace_id, external_id_type, external_id_value, seq desc
)
select workspace_id, external_id_type, external_id_value, external_id_hash,
    coalesce(m.canonical_profile_id, latest.profile_id) as canonical_profile_id, latest."timestamp", latest.seq
from latest left join {profile_merges} m using (workspace_id, profile_id)
where operation = 'CREATED'"""

_USER_TRAITS: Final = """
with latest as (
    select distinct on (workspace_id, profile_id, name) workspace_id, profile_id, name, value, event_timestamp, triggering_event_id,
        "timestamp", seq
    from {profile_traits_updates} order by workspace_id, profile_id, name, seq desc
)
select workspace_id, latest.profile_id as canonical_profile_id, name, value, event_timestamp, triggering_event_id,
    latest."timestamp", latest.seq
from latest left join {profile_merges} m using (workspace_id, profile_id)
where value is not null and (m.canonical_profile_id is null or m.canonical_profile_id = latest.profile_id)"""

_SEPARATED_IDENTIFIERS: Final = """
with merged as {merged}, part_of as (
    select distinct workspace_id, profile_id, canonical_profile_id from {id_graph_updates} where canonical_profile_id <> profile_id
), taken as (
    select distinct workspace_id, external_id_type, external_id_value from {external_id_mapping_updates} where operation = 'REMOVED'
), holders as (
    select distinct workspace_id, profile_id from {external_id_mapping_updates}
    where (workspace_id, external_id_type, external_id_value) in (select * from taken)
), apart as (
    select workspace_id, profile_id from holders
    union
    select workspace_id, canonical_profile_id from part_of where (workspace_id, profile_id) in (select * from holders)
    union
    select part_of.workspace_id, part_of.canonical_profile_id
    from part_of join merged part using (workspace_id, profile_id)
    left join merged whole
        on whole.workspace_id = part_of.workspace_id and whole.profile_id = part_of.canonical_profile_id
    where part.canonical_profile_id <> coalesce(whole.canonical_profile_id, part_of.canonical_profile_id)
), ever as (
    select workspace_id, external_id_type, external_id_value, profile_id
    from {external_id_mapping_updates} where (workspace_id, profile_id) in (select * from apart)
    union
    select workspace_id, external_id_type, external_id_value, part_of.canonical_profile_id
    from {external_id_mapping_updates} join part_of using (workspace_id, profile_id)
    where (workspace_id, part_of.canonical_profile_id) in (select * from apart)
), latest as (
    select distinct on (workspace_id, external_id_type, external_id_value)
        workspace_id, external_id_type, external_id_value, profile_id, operation
    from {external_id_mapping_updates}
    where (workspace_id, external_id_type, external_id_value) in (select workspace_id, external_id_type, external_id_value from ever)
    order by workspace_id, external_id_type, external_id_value, seq desc
)
select latest.workspace_id, external_id_type, external_id_value, ever.profile_id,
    coalesce(m.canonical_profile_id, latest.profile_id) as canonical_profile_id
from ever join latest using (workspace_id, external_id_type, external_id_value)
left join merged m on m.workspace_id = latest.workspace_id and m.profile_id = latest.profile_id
where latest.operation = 'CREATED'"""

_EVENTS_BY_PERSON: Final = """
with separated as materialized (
    select * from {separated_identifiers} where external_id_type in ('user_id', 'anonymous_id')
)
select {chosen},
    coalesce(u.canonical_profile_id, a.canonical_profile_id, m.canonical_profile_id, e.profile_id) as canonical_profile_id
from ({rows}) e
left join separated u on u.external_id_type = 'user_id' and u.external_id_value = e.user_id
    and u.profile_id = e.profile_id and u.workspace_id = e.workspace_id
    and coalesce(e.demoted_identifiers not like '%"user_id"%', true)
left join separated a on a.external_id_type = 'anonymous_id' and a.external_id_value = e.anonymous_id
    and a.profile_id = e.profile_id and a.workspace_id = e.workspace_id
    and coalesce(e.demoted_identifiers not like '%"anonymous_id"%', true)
left join {merged} m on m.profile_id = e.profile_id and m.workspace_id = e.workspace_id"""


def views(schema: str) -> Mapping[str, str]:
    """The text of each view by its name, in an order in which they can be made."""
    places = person_views.places(schema, place)
    merged = _MERGED.format(**places)
    chosen = ", ".join(f"e.{quoted(column)}" for column in person_views.COLUMNS)
    rows = person_views.events(schema, place, quoted, lambda kind: f"null::{TYPES[kind]}")
    texts = {
        naming.PROFILE_MERGES: _PROFILE_MERGES,
        naming.USER_IDENTIFIERS: _USER_IDENTIFIERS,
        naming.USER_TRAITS: _USER_TRAITS,
        naming.SEPARATED_IDENTIFIERS: _SEPARATED_IDENTIFIERS,
        naming.EVENTS_BY_PERSON: _EVENTS_BY_PERSON,
    }
    return {name: text.format(**places, merged=merged, chosen=chosen, rows=rows) for name, text in texts.items()}


def digest(texts: Mapping[str, str]) -> str:
    """Tells whether a schema's views are these."""
    return xxhash.xxh3_64_hexdigest("".join(texts.values()).encode())
