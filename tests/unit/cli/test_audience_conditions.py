"""Conditions as they are typed after ``--where``."""

import pytest

from cdi.identity.v1.audiences_service_pb2 import TraitCondition
from cdi_cli.commands.audiences import condition_of
from cdi_cli.terminal import CommandFailed


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("plan", TraitCondition(name="plan")),
        ("plan=pro", TraitCondition(name="plan", value='"pro"')),
        ('plan="3"', TraitCondition(name="plan", value='"3"')),
        ("orders=3", TraitCondition(name="orders", value="3")),
        ("orders>=3.5", TraitCondition(name="orders", value="3.5", at_least=True)),
        ("vip=true", TraitCondition(name="vip", value="true")),
        ("a=b=c", TraitCondition(name="a", value='"b=c"')),
    ],
)
def test_what_is_typed(text: str, condition: TraitCondition) -> None:
    assert condition_of(text) == condition


@pytest.mark.parametrize("text", ["", "=pro", ">=3", "plan=", "orders>="])
def test_what_is_no_condition(text: str) -> None:
    with pytest.raises(CommandFailed):
        condition_of(text)
