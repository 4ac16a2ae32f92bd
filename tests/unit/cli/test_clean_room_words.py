"""Aggregates and conditions of a clean room as they are typed."""

import pytest

from cdi.warehouse.v1.clean_room_pb2 import Condition, NumberRange, Texts, TimeRange
from cdi.warehouse.v1.clean_room_service_pb2 import FUNCTION_AVERAGE, FUNCTION_PEOPLE, Aggregate
from cdi_cli.commands.clean_rooms import aggregate_of, condition_of
from cdi_cli.terminal import CommandFailed
from cdi_testing import builders


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("country=DE", Condition(column="country", texts=Texts(values=["DE"]))),
        ("country=DE|FR", Condition(column="country", texts=Texts(values=["DE", "FR"]))),
        ("name=a=b\n", Condition(column="name", texts=Texts(values=["a=b\n"]))),
        ("vip=true", Condition(column="vip", boolean=True)),
        ("vip=false", Condition(column="vip", boolean=False)),
        ("total>=3.5", Condition(column="total", numbers=NumberRange(at_least=3.5))),
        ("total<0", Condition(column="total", numbers=NumberRange(below=0.0))),
        ("timestamp<2026-01-15T12:00:00Z", Condition(column="timestamp", times=TimeRange(below=builders.timestamp(builders.EVENT_TIME)))),
    ],
)
def test_what_is_typed(text: str, condition: Condition) -> None:
    assert condition_of(text) == condition


@pytest.mark.parametrize("text", ["", "country", "country=", "=DE", "total>=many", "total>3", "a b=c"])
def test_what_is_no_condition(text: str) -> None:
    with pytest.raises(CommandFailed):
        condition_of(text)


def test_aggregates() -> None:
    assert aggregate_of("people") == Aggregate(function=FUNCTION_PEOPLE)
    assert aggregate_of("average:total") == Aggregate(function=FUNCTION_AVERAGE, column="total")
    with pytest.raises(CommandFailed):
        aggregate_of("median:total")
