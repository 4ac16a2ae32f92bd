"""Loaded rows against what DuckDB's own JSON reader makes of the raw input: the expected tables are plain SQL over the lines."""

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from cdi_testing import builders

from .engines import Place, load, records

EVENTS = 600
START = datetime(2026, 1, 1, tzinfo=UTC)
PEOPLE = [f"user-{number}" for number in range(25)]
EXPECTED = {
    "tracks": """select messageId as id, userId as user_id, event as event_text, ts as "timestamp",
        lower(replace(event, ' ', '_')) as event from raw where type = 'track'""",
    "order_completed": """select messageId as id, userId as user_id, (properties->>'total')::double as total,
        (properties->>'items')::bigint as items,
        (properties->>'gift')::boolean as gift, properties->>'coupon' as coupon, properties->'$.shipping.city'->>'$' as shipping_city,
        (properties->'$.shipping.address.floor')::bigint as shipping_address_floor, (properties->'products')::varchar as products,
        (properties->>'paidAt')::timestamptz as paid_at, context->>'locale' as context_locale,
        context->'$.page.path'->>'$' as context_page_path
        from raw where type = 'track' and event = 'Order Completed'""",
    "identifies": """select messageId as id, userId as user_id, traits->>'plan' as plan, (traits->>'age')::bigint as age
        from raw where type = 'identify'""",
    "users": """select userId as id, max(ts) as "timestamp", arg_max(traits->>'plan', ts) filter (traits->>'plan' is not null) as plan,
        arg_max((traits->>'age')::bigint, ts) filter (traits->>'age' is not null) as age
        from raw where type = 'identify' group by userId""",
}


def line(number: int, chance: random.Random) -> dict[str, Any]:
    """An event as an SDK sends it; each later than the one before."""
    common = {
        "messageId": f"m{number:04}",
        "userId": chance.choice(PEOPLE),
        "ts": (START + timedelta(seconds=37 * number)).isoformat(),
        "context": {"locale": chance.choice(["de", "fr", None]), "page": {"path": f"/{number % 7}"}},
    }
    if chance.random() < 0.3:
        traits = {"plan": chance.choice(["free", "pro", None]), "age": chance.choice([None, chance.randrange(90)])}
        return {**common, "type": "identify", "traits": traits}
    if chance.random() < 0.5:
        return {**common, "type": "track", "event": "Product Viewed", "properties": {"sku": f"s{number}"}}
    properties = {
        "total": chance.choice([chance.randrange(100), round(chance.random() * 100, 2)]),
        "items": chance.randrange(2**40),
        "gift": chance.choice([True, False, None]),
        "coupon": chance.choice(["Ünï", "", 'quote"d', None]),
        "shipping": {"city": chance.choice(["Bern", "Genève"]), "address": {"floor": chance.randrange(9)}},
        "products": [{"sku": "a", "n": number}, None],
        "paidAt": (START + timedelta(seconds=number, microseconds=number)).isoformat(),
    }
    return {**common, "type": "track", "event": "Order Completed", "properties": properties}


def test_every_table_is_what_plain_sql_makes_of_the_input(place: Place, tmp_path: Path) -> None:
    chance = random.Random(11)
    lines = [line(number, chance) for number in range(EVENTS)]
    source = tmp_path / "raw.ndjson"
    source.write_text("".join(json.dumps(one) + "\n" for one in lines))
    warehouse = place.open()
    at = 0
    while at < EVENTS:
        taken = lines[at : at + chance.randrange(1, 90)]
        load(warehouse, *map(_event, taken), partition=at % 3)
        at += len(taken)
    reader = duckdb.connect()
    reader.execute("set timezone = 'UTC'")
    reader.execute(
        f"""create table raw as select * from read_json('{source}', format = 'newline_delimited', columns = {{messageId: 'varchar',
        userId: 'varchar', ts: 'timestamptz', type: 'varchar', event: 'varchar', properties: 'json', traits: 'json', context: 'json'}})"""
    )
    for table, sql in EXPECTED.items():
        expected = reader.sql(sql).to_arrow_table().to_pylist()
        columns = ", ".join(f"t.{name}" for name in expected[0])
        found = list(records(warehouse, f"select {columns} from main.{table} t"))
        assert len(expected) > 20
        assert _sorted(found) == _sorted(expected)


def _event(one: dict[str, Any]) -> Any:
    at = datetime.fromisoformat(one["ts"])
    fields = {"message_id": one["messageId"], "user_id": one["userId"], "context": one["context"], "at": at}
    if one["type"] == "identify":
        return builders.identify(traits=one["traits"], **fields)
    return builders.track(one["event"], properties=one["properties"], **fields)


def _sorted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By id, times in one zone."""
    same = [{name: value.astimezone(UTC) if isinstance(value, datetime) else value for name, value in row.items()} for row in rows]
    return sorted(same, key=lambda row: str(row["id"]))
