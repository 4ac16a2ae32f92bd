"""The identity graph in BigQuery: its views.

They say what those of the other engines say (``warehouses.duckdb.identity`` has the reasons). There is no ``by_person(table)``: a function
of BigQuery cannot be told the name of a table; join a table with ``events_by_person`` on ``id``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cdi_warehouse_loader.domain import naming
from cdi_warehouse_loader.warehouses import person_views
from cdi_warehouse_loader.warehouses.bigquery.sql import TYPES, place, quoted

_LATEST: Final = "QUALIFY ROW_NUMBER() OVER (PARTITION BY {keys} ORDER BY `seq` DESC) = 1"
_OF_PROFILE: Final = _LATEST.format(keys="`workspace_id`, `profile_id`")
_OF_IDENTIFIER: Final = _LATEST.format(keys="`workspace_id`, `external_id_type`, `external_id_value`")
_OF_TRAIT: Final = _LATEST.format(keys="`workspace_id`, `profile_id`, `name`")

_PROFILE_MERGES: Final = f"""
SELECT `workspace_id`, `profile_id`, `canonical_profile_id`, `timestamp`, `seq` FROM {{id_graph_updates}} WHERE TRUE {_OF_PROFILE}"""

# Only of profiles that ever were part of another one: all that a query over events has to keep in memory.
_MERGED: Final = f"""(
    SELECT g.`workspace_id`, g.`profile_id`, g.`canonical_profile_id` FROM {{id_graph_updates}} AS g
    JOIN (SELECT DISTINCT `workspace_id`, `profile_id` FROM {{id_graph_updates}} WHERE `canonical_profile_id` <> `profile_id`) AS ever
        ON ever.`workspace_id` = g.`workspace_id` AND ever.`profile_id` = g.`profile_id`
    WHERE TRUE {_LATEST.format(keys="g.`workspace_id`, g.`profile_id`").replace("`seq`", "g.`seq`")})"""

# Whoever the last row names may have become part of another profile since.
_USER_IDENTIFIERS: Final = f"""
SELECT l.`workspace_id`, l.`external_id_type`, l.`external_id_value`, l.`external_id_hash`,
    COALESCE(m.`canonical_profile_id`, l.`profile_id`) AS `canonical_profile_id`, l.`timestamp`, l.`seq`
FROM (SELECT * FROM {{external_id_mapping_updates}} WHERE TRUE {_OF_IDENTIFIER}) AS l
LEFT JOIN {{profile_merges}} AS m ON m.`workspace_id` = l.`workspace_id` AND m.`profile_id` = l.`profile_id`
WHERE l.`operation` = 'CREATED'"""

# What a profile had while it was part of another one is not its own: the rows of the other one say it.
_USER_TRAITS: Final = f"""
SELECT l.`workspace_id`, l.`profile_id` AS `canonical_profile_id`, l.`name`, l.`value`, l.`event_timestamp`, l.`triggering_event_id`,
    l.`timestamp`, l.`seq`
FROM (SELECT * FROM {{profile_traits_updates}} WHERE TRUE {_OF_TRAIT}) AS l
LEFT JOIN {{profile_merges}} AS m ON m.`workspace_id` = l.`workspace_id` AND m.`profile_id` = l.`profile_id`
WHERE l.`value` IS NOT NULL AND (m.`canonical_profile_id` IS NULL OR m.`canonical_profile_id` = l.`profile_id`)"""

# Only of profiles whose identifiers have gone different ways: those that held one which was taken from somebody, whatever these were ever
# part of, and profiles that another one is no longer part of.
_SEPARATED_IDENTIFIERS: Final = f"""
WITH merged AS (SELECT * FROM {{merged}}), part_of AS (
    SELECT DISTINCT `workspace_id`, `profile_id`, `canonical_profile_id` FROM {{id_graph_updates}}
    WHERE `canonical_profile_id` <> `profile_id`
), taken AS (
    SELECT DISTINCT `workspace_id`, `external_id_type`, `external_id_value` FROM {{external_id_mapping_updates}}
    WHERE `operation` = 'REMOVED'
), holders AS (
    SELECT DISTINCT u.`workspace_id`, u.`profile_id` FROM {{external_id_mapping_updates}} AS u JOIN taken AS t
    ON t.`workspace_id` = u.`workspace_id` AND t.`external_id_type` = u.`external_id_type` AND t.`external_id_value` = u.`external_id_value`
), apart AS (
    SELECT `workspace_id`, `profile_id` FROM holders
    UNION DISTINCT
    SELECT p.`workspace_id`, p.`canonical_profile_id` AS `profile_id` FROM part_of AS p
    JOIN holders AS h ON h.`workspace_id` = p.`workspace_id` AND h.`profile_id` = p.`profile_id`
    UNION DISTINCT
    SELECT p.`workspace_id`, p.`canonical_profile_id` AS `profile_id` FROM part_of AS p
    JOIN merged AS part ON part.`workspace_id` = p.`workspace_id` AND part.`profile_id` = p.`profile_id`
    LEFT JOIN merged AS whole ON whole.`workspace_id` = p.`workspace_id` AND whole.`profile_id` = p.`canonical_profile_id`
    WHERE part.`canonical_profile_id` <> COALESCE(whole.`canonical_profile_id`, p.`canonical_profile_id`)
), ever AS (
    SELECT u.`workspace_id`, u.`external_id_type`, u.`external_id_value`, u.`profile_id` FROM {{external_id_mapping_updates}} AS u
    JOIN apart AS a ON a.`workspace_id` = u.`workspace_id` AND a.`profile_id` = u.`profile_id`
    UNION DISTINCT
    SELECT u.`workspace_id`, u.`external_id_type`, u.`external_id_value`, p.`canonical_profile_id` AS `profile_id`
    FROM {{external_id_mapping_updates}} AS u
    JOIN part_of AS p ON p.`workspace_id` = u.`workspace_id` AND p.`profile_id` = u.`profile_id`
    JOIN apart AS a ON a.`workspace_id` = p.`workspace_id` AND a.`profile_id` = p.`canonical_profile_id`
), latest AS (
    SELECT `workspace_id`, `external_id_type`, `external_id_value`, `profile_id`, `operation`
    FROM {{external_id_mapping_updates}} WHERE TRUE {_OF_IDENTIFIER}
)
SELECT e.`workspace_id`, e.`external_id_type`, e.`external_id_value`, e.`profile_id`,
    COALESCE(m.`canonical_profile_id`, l.`profile_id`) AS `canonical_profile_id`
FROM ever AS e
JOIN latest AS l
    ON l.`workspace_id` = e.`workspace_id` AND l.`external_id_type` = e.`external_id_type` AND l.`external_id_value` = e.`external_id_value`
LEFT JOIN merged AS m ON m.`workspace_id` = l.`workspace_id` AND m.`profile_id` = l.`profile_id`
WHERE l.`operation` = 'CREATED'"""

_EVENTS_BY_PERSON: Final = """
SELECT {chosen},
    COALESCE(
        IF(COALESCE(e.`demoted_identifiers` LIKE '%"user_id"%', FALSE), NULL, u.`canonical_profile_id`),
        IF(COALESCE(e.`demoted_identifiers` LIKE '%"anonymous_id"%', FALSE), NULL, a.`canonical_profile_id`),
        m.`canonical_profile_id`, e.`profile_id`) AS `canonical_profile_id`
FROM ({rows}) AS e
LEFT JOIN (SELECT * FROM {separated_identifiers} WHERE `external_id_type` = 'user_id') AS u
    ON u.`external_id_value` = e.`user_id` AND u.`profile_id` = e.`profile_id` AND u.`workspace_id` = e.`workspace_id`
LEFT JOIN (SELECT * FROM {separated_identifiers} WHERE `external_id_type` = 'anonymous_id') AS a
    ON a.`external_id_value` = e.`anonymous_id` AND a.`profile_id` = e.`profile_id` AND a.`workspace_id` = e.`workspace_id`
LEFT JOIN {merged} AS m ON m.`profile_id` = e.`profile_id` AND m.`workspace_id` = e.`workspace_id`"""


def views(schema: str) -> Iterator[str]:
    """The views, in an order in which they can be made; their tables exist."""
    places = person_views.places(schema, place)
    merged = _MERGED.format(**places)
    chosen = ", ".join(f"e.{quoted(column)}" for column in person_views.COLUMNS)
    rows = person_views.events(schema, place, quoted, lambda kind: f"CAST(NULL AS {TYPES[kind]})")
    for name, body in (
        (naming.PROFILE_MERGES, _PROFILE_MERGES),
        (naming.USER_IDENTIFIERS, _USER_IDENTIFIERS),
        (naming.USER_TRAITS, _USER_TRAITS),
        (naming.SEPARATED_IDENTIFIERS, _SEPARATED_IDENTIFIERS),
        (naming.EVENTS_BY_PERSON, _EVENTS_BY_PERSON),
    ):
        yield f"CREATE OR REPLACE VIEW {places[name]} AS {body.format(**places, merged=merged, chosen=chosen, rows=rows)}"
