"""What makes a purpose and a policy valid, and their canonical form."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from cdi_consent.domain.policy import GDPR, ConsentPolicy, DefaultPolicy, RegionalDefaults
from cdi_consent.domain.purposes import Purpose, WarehouseRule
from cdi_kernel.faults import InvalidArgument

MAX_NAME: Final = 64
"""Characters of a workspace's or a purpose's name. With ``MAX_SUBJECT_ID`` it keeps every key below Postgres' 2,704 bytes."""

MAX_TEXT: Final = 2_000
"""Characters of a description."""

MAX_CATEGORIES: Final = 100
"""Categories, destinations, columns, warehouses or regions of one purpose.

A category has at most ``MAX_NAME`` characters (Segment: fewer than 35).
"""

_NAME_RULE: Final = f"must have 1 to {MAX_NAME} printable characters"
_COLUMN_RULE: Final = "must be a path below properties, traits or context"
_DESTINATION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,99}")
_COLUMN: Final = re.compile(r"(properties|traits|context)(\.[^.\x00-\x1f]{1,100}){1,8}")
_WAREHOUSE: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_REGION: Final = re.compile(r"[A-Z]{2}(-[A-Z0-9]{1,3})?")


def checked(purpose: Purpose) -> Purpose:
    """The purpose in its canonical form: lists sorted, each entry once, categories without the name.

    Raises:
        InvalidArgument: a name is missing, too long or holds a control character; too many of something; a column, region or warehouse is
            none; a region or warehouse stands twice.
    """
    _raise(_problems(purpose), "the purpose breaks a rule")
    return dataclasses.replace(
        purpose,
        categories=_each_once(category for category in purpose.categories if category != purpose.name),
        destinations=_each_once(purpose.destinations),
        columns=_each_once(purpose.columns),
        regional_defaults=tuple(sorted(purpose.regional_defaults)),
        warehouses=tuple(sorted(rule._replace(columns=_each_once(rule.columns)) for rule in purpose.warehouses)),
    )


def checked_policy(policy: ConsentPolicy) -> ConsentPolicy:
    """The policy in its canonical form: REQUIRE where it says nothing, regions sorted.

    Raises:
        InvalidArgument: the workspace is missing, a region is none or stands twice.
    """
    _raise(_policy_problems(policy), "the policy breaks a rule")
    return dataclasses.replace(
        policy,
        default_policy=policy.default_policy or DefaultPolicy.REQUIRE,
        regional_defaults=tuple(sorted(policy.regional_defaults)),
    )


def _raise(problems: Iterable[tuple[str, str]], text: str) -> None:
    found = list(problems)
    if found:
        raise InvalidArgument(text, metadata={"field": found[0][0]}, field_violations=found)


def _problems(purpose: Purpose) -> Iterator[tuple[str, str]]:
    if not _is_name(purpose.workspace_id):
        yield "purpose.workspace_id", _NAME_RULE
    if not _is_name(purpose.name):
        yield "purpose.name", _NAME_RULE
    if len(purpose.description) > MAX_TEXT or "\0" in purpose.description:
        yield "purpose.description", f"must have at most {MAX_TEXT} characters and no NUL"
    yield from _list_problems("purpose.categories", purpose.categories, _is_name, _NAME_RULE)
    is_destination, is_column = _DESTINATION.fullmatch, _COLUMN.fullmatch
    yield from _list_problems("purpose.destinations", purpose.destinations, is_destination, "must be the name of a destination")
    yield from _list_problems("purpose.columns", purpose.columns, is_column, _COLUMN_RULE)
    yield from _warehouse_problems(purpose.warehouses)
    yield from _regional_problems("purpose.regional_defaults", purpose.regional_defaults)


def _warehouse_problems(rules: Sequence[WarehouseRule]) -> Iterator[tuple[str, str]]:
    names = [rule.warehouse for rule in rules]
    rule_of_names = "must be the name of a warehouse, each once"
    yield from _list_problems(
        "purpose.warehouses", names, lambda name: _WAREHOUSE.fullmatch(name) and names.count(name) == 1, rule_of_names
    )
    for index, rule in enumerate(rules):
        path = f"purpose.warehouses[{index}]"
        yield from _list_problems(f"{path}.columns", rule.columns, _COLUMN.fullmatch, _COLUMN_RULE)
        if not (rule.rows or rule.columns):
            yield path, "must say what needs the purpose: rows or columns"


def _policy_problems(policy: ConsentPolicy) -> Iterator[tuple[str, str]]:
    if not _is_name(policy.workspace_id):
        yield "policy.workspace_id", _NAME_RULE
    yield from _regional_problems("policy.regional_defaults", policy.regional_defaults)


def _regional_problems(path: str, defaults: RegionalDefaults) -> Iterator[tuple[str, str]]:
    regions = [region for region, _ in defaults]
    rule = f'must be "{GDPR}", a country like "US" or a part of one like "US-CA", each once'
    yield from _list_problems(
        path, regions, lambda region: (region == GDPR or _REGION.fullmatch(region)) and regions.count(region) == 1, rule
    )
    if any(policy is DefaultPolicy.UNSPECIFIED for _, policy in defaults):
        yield path, "must say what holds in the region"


def _list_problems(path: str, values: Sequence[str], is_good: Callable[[str], object], rule: str) -> Iterator[tuple[str, str]]:
    if len(values) > MAX_CATEGORIES:
        yield path, f"must be at most {MAX_CATEGORIES}"
        return
    for index, value in enumerate(values):
        if not is_good(value):
            yield f"{path}[{index}]", rule


def _each_once(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(values)))


def _is_name(text: str) -> bool:
    return 0 < len(text) <= MAX_NAME and text.isprintable()
