"""The identity graph in a warehouse in Snowflake: its views.

They say what those of the embedded warehouse say (``warehouses.duckdb.identity`` has the reasons); one plain model holds them to it. There
is no ``by_person(table)``: no function of Snowflake can add a column to the rows of whichever table it is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import xxhash

from cdi_warehouse_loader.domain import naming
from cdi_warehouse_loader.warehouses import person_views
from cdi_warehouse_loader.warehouses.snowflake.sql import TYPES, place, quoted

_PROFILE_MERGES: Final = """
select g.workspace_id, g.profile_id, g.canonical_profile_id, g."TIMESTAMP", g.seq from {id_graph_updates} g
qualify row_number() over (partition by g.workspace_id, g.profile_id order by g.seq desc) = 1"""

# Only of profiles that ever were part of another one.
_MERGED: Final = """(
    select g.workspace_id, g.profile_id, g.canonical_profile_id from {id_graph_updates} g
    join (select distinct workspace_id, profile_id from {id_graph_updates} where canonical_profile_id <> profile_id) p
        on p.workspace_id = g.workspace_id and p.profile_id = g.profile_id
    qualify row_number() over (partition by g.workspace_id, g.profile_id order by g.seq desc) = 1
)"""

_USER_IDENTIFIERS: Final = """
with latest as (
    select u.workspace_id, u.external_id_type, u.external_id_value, u.external_id_hash, u.profile_id, u.operation, u."TIMESTAMP", u.seq
    from {external_id_mapping_updates} u
    qualify row_number() over (partition by u.workspace_id, u.external_id_type, u.external_id_value order by u.seq desc) = 1
)
select l.workspace_id, l.external_id_type, l.external_id_value, l.external_id_hash,
    coalesce(m.canonical_profile_id, l.profile_id) as canonical_profile_id, l."TIMESTAMP", l.seq
from latest l left join {profile_merges} m on m.workspace_id = l.workspace_id and m.profile_id = l.profile_id
where l.operation = 'CREATED'"""

_USER_TRAITS: Final = """
with latest as (
    select u.workspace_id, u.profile_id, u.name, u.value, u.event_timestamp, u.triggering_event_id, u."TIMESTAMP", u.seq
    from {profile_traits_updates} u
    qualify row_number() over (partition by u.workspace_id, u.profile_id, u.name order by u.seq desc) = 1
)
select l.workspace_id, l.profile_id as canonical_profile_id, l.name, l.value, l.event_timestamp, l.triggering_event_id,
    l."TIMESTAMP", l.seq
from latest l left join {profile_merges} m on m.workspace_id = l.workspace_id and m.profile_id = l.profile_id
where l.value is not null and (m.canonical_profile_id is null or m.canonical_profile_id = l.profile_id)"""

_SEPARATED_IDENTIFIERS: Final = """
with merged as {merged}, part_of as (
    select distinct workspace_id, profile_id, canonical_profile_id from {id_graph_updates} where canonical_profile_id <> profile_id
), taken as (
    select distinct workspace_id, external_id_type, external_id_value from {external_id_mapping_updates} where operation = 'REMOVED'
), holders as (
    select distinct u.workspace_id, u.profile_id from {external_id_mapping_updates} u
    join taken t on t.workspace_id = u.workspace_id and t.external_id_type = u.external_id_type
        and t.external_id_value = u.external_id_value
), apart as (
    select workspace_id, profile_id from holders
    union
    select p.workspace_id, p.canonical_profile_id as profile_id from part_of p
    join holders h on h.workspace_id = p.workspace_id and h.profile_id = p.profile_id
    union
    select p.workspace_id, p.canonical_profile_id as profile_id from part_of p
    join merged part on part.workspace_id = p.workspace_id and part.profile_id = p.profile_id
    left join merged whole on whole.workspace_id = p.workspace_id and whole.profile_id = p.canonical_profile_id
    where part.canonical_profile_id <> coalesce(whole.canonical_profile_id, p.canonical_profile_id)
), ever as (
    select u.workspace_id, u.external_id_type, u.external_id_value, u.profile_id from {external_id_mapping_updates} u
    join apart a on a.workspace_id = u.workspace_id and a.profile_id = u.profile_id
    union
    select u.workspace_id, u.external_id_type, u.external_id_value, p.canonical_profile_id as profile_id
    from {external_id_mapping_updates} u
    join part_of p on p.workspace_id = u.workspace_id and p.profile_id = u.profile_id
    join apart a on a.workspace_id = p.workspace_id and a.profile_id = p.canonical_profile_id
), latest as (
    select u.workspace_id, u.external_id_type, u.external_id_value, u.profile_id, u.operation from {external_id_mapping_updates} u
    join (select distinct workspace_id, external_id_type, external_id_value from ever) e on e.workspace_id = u.workspace_id
        and e.external_id_type = u.external_id_type and e.external_id_value = u.external_id_value
    qualify row_number() over (partition by u.workspace_id, u.external_id_type, u.external_id_value order by u.seq desc) = 1
)
select l.workspace_id, l.external_id_type, l.external_id_value, e.profile_id,
    coalesce(m.canonical_profile_id, l.profile_id) as canonical_profile_id
from ever e
join latest l on l.workspace_id = e.workspace_id and l.external_id_type = e.external_id_type and l.external_id_value = e.external_id_value
left join merged m on m.workspace_id = l.workspace_id and m.profile_id = l.profile_id
where l.operation = 'CREATED'"""

_EVENTS_BY_PERSON: Final = """
with separated as (
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
