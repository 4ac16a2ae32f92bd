"""Types of columns from tracking plans."""

import json
from typing import Any

import pytest

from cdi_testing import builders
from cdi_warehouse_loader.domain.columns import ColumnType
from cdi_warehouse_loader.domain.planned_types import ColumnRules, planned_types

from .test_warehouse_plan import Schema


def rule(kind: str, name: str, member: str, **properties: Any) -> tuple[str, str, str]:
    return kind, name, json.dumps({"type": "object", "properties": {member: {"type": "object", "properties": properties}}})


def test_schemas_say_the_types_of_columns_by_table() -> None:
    found = planned_types(
        [
            rule(
                "track",
                "Order Completed",
                "properties",
                orderId={"type": "string"},
                total={"type": ["number", "null"]},
                count={"type": "integer"},
                gift={"type": "boolean"},
                at={"type": "string", "format": "date-time"},
                products={"type": "array"},
                shipping={"type": "object", "properties": {"zipCode": {"type": "string"}}},
                odd={"anyOf": [{"type": "string"}, {"type": "integer"}]},
                event={"type": "integer"},
            ),
            rule("identify", "", "traits", age={"type": "integer"}),
        ]
    )
    assert found == {
        "order_completed": {
            "order_id": ColumnType.TEXT,
            "total": ColumnType.DOUBLE,
            "count": ColumnType.BIGINT,
            "gift": ColumnType.BOOLEAN,
            "at": ColumnType.TIMESTAMP,
            "shipping_zip_code": ColumnType.TEXT,
            "_event": ColumnType.BIGINT,
        },
        "identifies": {"age": ColumnType.BIGINT},
        "users": {"age": ColumnType.BIGINT},
    }


def test_plans_that_contradict_each_other_say_nothing() -> None:
    found = planned_types([rule("track", "Seen", "properties", a={"type": kind}, b={"type": "string"}) for kind in ("string", "integer")])
    assert found == {"seen": {"b": ColumnType.TEXT}}


def of_properties(text: str) -> str:
    return f'{{"properties": {{"properties": {text}}}}}'


SILENT = {"a": True, "b": {"type": 7}, "c": {"type": []}, "d": {"type": ["string", "integer"]}, "e": {"$ref": "#/x"}, "f": {"enum": [1]}}


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "true", '{"properties": 3}', of_properties('{"type": "object"}'), of_properties("false"), '{"$ref": "#/x"}',
     of_properties(json.dumps({"properties": SILENT}))],
)  # fmt: skip
def test_a_schema_that_says_nothing_plainly_gives_no_type(text: str) -> None:
    assert not any(planned_types([("track", "Seen", text)]).values())


def test_a_new_column_has_its_planned_type_whatever_its_first_value_is() -> None:
    rules = ColumnRules(
        planned=planned_types(
            [rule("track", "Seen", "properties", price={"type": "number"}, code={"type": "string"}, n={"type": "integer"})]
        )
    )
    schema = Schema()
    schema.load(builders.track("Seen", message_id="a", properties={"price": 1, "code": 7, "n": None, "free": 1}), rules=rules)
    assert {name: schema.columns["seen"].get(name) for name in ("price", "code", "n", "free")} == {
        "price": "DOUBLE",
        "code": "VARCHAR",
        "n": None,
        "free": "BIGINT",
    }
    assert (schema.rows["seen"][0]["price"], schema.rows["seen"][0]["code"]) == (1.0, "7")
    schema.load(builders.track("Seen", message_id="b", properties={"n": "many"}), rules=rules)
    assert schema.columns["seen"]["n"] == "BIGINT"
    assert schema.discards() == [("b", "seen", "n", "many", "type_conflict")]
