"""What warehouses may have of an event: a truth table of purposes, warehouses and destinations; nothing of a withheld member is left."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi.event.v1 import outcome_pb2
from cdi.event.v1.event_pb2 import Event, EventBatch
from cdi.identity.v1.profile_pb2 import MAPPING_OPERATION_CREATED, GraphChanged, Identifier
from cdi_kernel.faults import Rejected
from cdi_router.application.needs import needing as destination_needing
from cdi_router.domain.destination import Destination, Webhook
from cdi_router.domain.filter import Filter
from cdi_testing import builders
from cdi_testing.builders import WORKSPACE
from cdi_warehouse_loader.domain.documents import Document, targets
from cdi_warehouse_loader.domain.event_load import Poisoned, plan_events
from cdi_warehouse_loader.domain.event_view import read_batch
from cdi_warehouse_loader.domain.graph_rows import Numbered, graph_loads
from cdi_warehouse_loader.domain.layout import STARTING_TABLES
from cdi_warehouse_loader.domain.load import TableLoad
from cdi_warehouse_loader.domain.withholding import masked, needs_of, withheld_traits

TOKEN = "planted-4d1c"
Rule = tuple[str, str, bool, tuple[str, ...]]
Outcomes = Counter[tuple[str, str]]


def plan(events: Sequence[Event], rules: Sequence[Rule], *documents: Document) -> tuple[Mapping[str, list[TableLoad]], Outcomes]:
    """The tables of each schema, and the counts by sink and outcome."""
    read = read_batch(EventBatch(events=events).SerializeToString()).events
    where = targets(documents, {WORKSPACE: needs_of(rules)} if rules else {})
    items = [(event, 0, place) for place, event in enumerate(read)]
    catalog = {target.schema: dict(STARTING_TABLES) for target in where.of(WORKSPACE)}
    load = plan_events(items, (), {}, where, 1_800_000_000_000_000)(catalog)
    tables: dict[str, list[TableLoad]] = {}
    for table in load.tables:
        tables.setdefault(table.schema, []).append(table)
    counts = Counter({(key.sink, outcome_pb2.Outcome.Name(key.outcome).removeprefix("OUTCOME_")): n for key, n in load.counts.items() if n})
    return tables, counts


def granted(event: Event, *purposes: str) -> Event:
    event.consent.granted_purposes.extend(sorted(purposes))
    return event


def rows(tables: Sequence[TableLoad], table: str) -> list[dict[str, Any]]:
    return [row for load in tables if load.table == table and load.rows is not None for row in load.rows.to_pylist()]


ROWS: Rule = ("ads", "main", True, ())
COLUMNS: Rule = ("ads", "main", False, ("properties.coupon",))
BOTH: Rule = ("ads", "main", True, ("properties.coupon",))
ELSEWHERE: Rule = ("ads", "other", True, ("properties.coupon",))
STATS: Rule = ("stats", "main", False, ("properties.coupon",))


@pytest.mark.parametrize(
    ("rules", "destinations", "purposes", "in_main", "in_other", "at_destination"),
    [
        # rules of purposes, destinations that "ads" names, granted → the coupon in each warehouse (None: no row), delivered
        ([], [], [], "C", "C", True),
        ([ROWS], [], [], None, "C", True),
        ([ROWS], [], ["ads"], "C", "C", True),
        ([COLUMNS], [], [], "", "C", True),
        ([COLUMNS], [], ["ads"], "C", "C", True),
        ([COLUMNS], [], ["stats"], "", "C", True),
        ([BOTH], [], [], None, "C", True),
        ([ELSEWHERE], [], [], "C", None, True),
        ([COLUMNS, STATS], [], ["ads"], "", "C", True),
        ([COLUMNS, STATS], [], ["ads", "stats"], "C", "C", True),
        ([ROWS, STATS], [], ["ads"], "", "C", True),
        # The other way round: a destination without permission, and the warehouses have it whole.
        ([], ["hook"], [], "C", "C", False),
        ([], ["hook"], ["ads"], "C", "C", True),
        ([ROWS], ["hook"], [], None, "C", False),
    ],
)
def test_each_warehouse_and_each_destination_for_itself(
    rules: list[Rule], destinations: list[str], purposes: list[str], in_main: str | None, in_other: str | None, at_destination: bool
) -> None:
    event = granted(builders.track("Bought", properties={"coupon": "C", "total": 3}), *purposes)
    documents = Document(WORKSPACE, "main", (), "main", 1), Document(WORKSPACE, "other", (), "other", 1)
    tables, counts = plan([event], rules, *documents)
    for schema, expected in (("main", in_main), ("other", in_other)):
        found = rows(tables.get(schema, []), "bought")
        assert [(row.get("coupon") or "", row["total"]) for row in found] == ([] if expected is None else [(expected, 3)])
        outcome = "FILTERED" if expected is None else "LOADED"
        assert counts[f"warehouse:{schema}", outcome] == 1
    destination = Destination(WORKSPACE, "hook", Webhook("http://x/"))
    needed = ["ads"] if "hook" in destinations else []
    assert (Filter(destination_needing(destination, needed)).reason(event) is None) is at_destination


def test_a_workspace_without_a_document_is_bound_too() -> None:
    tables, counts = plan([granted(builders.track("Bought")), granted(builders.track("Bought"), "ads")], [ROWS])
    assert len(rows(tables["main"], "tracks")) == 1
    assert counts == {("warehouse:main", "LOADED"): 1, ("warehouse:main", "FILTERED"): 1}


def everything(*purposes: str) -> Event:
    """An event with the token wherever a member, or what is made of it, can hold it."""
    event = granted(
        builders.identify(
            user_id="ada",
            traits={
                "email": f"{TOKEN}@example.com",
                "address": {"city": TOKEN, "zip": 1},
                "many": [{"secret": TOKEN, "kept": 1}],
                "plan": "pro",
            },
            context={
                "ip": f"ip-{TOKEN}",
                "userAgent": TOKEN,
                "page": {"url": f"https://x/?utm_source={TOKEN}", "referrer": TOKEN, "path": "/"},
            },
        ),
        *purposes,
    )
    event.identity.traits = json.dumps({"email": f"{TOKEN}@example.com", "address": {"city": TOKEN}, "plan": "pro"}).encode()
    event.enrichments.geo.city = TOKEN
    event.enrichments.user_agent.browser = TOKEN
    event.enrichments.campaign.source = TOKEN
    event.enrichments.referrer.host = TOKEN
    event.enrichments.email_quality.disposable = True
    return event


PATHS = (
    "context.ip",
    "context.page.referrer",
    "context.page.url",
    "context.userAgent",
    "traits.address",
    "traits.email",
    "traits.many.secret",
)


def test_nothing_of_a_withheld_member_is_left_in_any_table_and_all_else_is() -> None:
    tables, _ = plan([everything(), everything("ads")], [("ads", "main", False, PATHS)])
    denied, allowed = rows(tables["main"], "identifies")
    assert TOKEN not in json.dumps(denied, default=str)
    kept = {"plan": "pro", "many": '[{"kept":1}]', "context_page_path": "/", "context_profile_plan": "pro"}
    assert denied.items() >= kept.items()
    assert denied["email_disposable"] is None
    whole = {"email", "address_city", "many", "context_ip", "geo_city", "ua_browser", "campaign_source", "referrer_host"}
    assert {name for name, value in allowed.items() if TOKEN in str(value)} >= whole | {"context_profile_email"}
    (person,) = rows(tables["main"], "users")
    assert person["email"] == f"{TOKEN}@example.com"  # of the event that allowed it


def test_what_is_withheld_is_no_row_of_discards_either() -> None:
    first = granted(builders.track("Bought", properties={"coupon": 1}), "ads")
    second = granted(builders.track("Bought", properties={"coupon": TOKEN}))
    tables, _ = plan([first, second], [COLUMNS])
    assert not rows(tables["main"], "discards")
    assert [row["coupon"] for row in rows(tables["main"], "bought")] == [1, None]


def test_a_poisoned_event_keeps_its_payload_only_where_it_may_be() -> None:
    read = read_batch(EventBatch(events=[everything()]).SerializeToString()).events
    where = targets(
        [Document(WORKSPACE, "main", (), "main", 1), Document(WORKSPACE, "whole", (), "whole", 1)], {WORKSPACE: needs_of([COLUMNS])}
    )
    poisoned = Poisoned((read[0], 0, 1), Rejected(0, "broken"))
    load = plan_events([], [poisoned], {}, where, 1)({})
    found = {table.schema: table.rows.to_pylist()[0] for table in load.tables}
    assert (found["main"]["payload"], found["main"]["payload_truncated"]) == (None, True)
    assert found["whole"]["payload"]


def test_changes_of_the_graph_keep_away_what_may_rest_on_a_withheld_member() -> None:
    changed = GraphChanged(workspace_id=WORKSPACE)
    for kind in ("email", "user_id", "anonymous_id"):
        changed.mappings.add(identifier=Identifier(type=kind, value="x"), profile_id="p", operation=MAPPING_OPERATION_CREATED)
    for name in ("email", "plan", "address"):
        changed.traits.add(profile_id="p", name=name, value=b"1")
    needs = needs_of([("ads", "main", False, ("traits.email", "context.traits.address.city"))])["main"]
    mappings, traits = graph_loads("main", [Numbered(1, changed)], 1, personal=True, columns=needs.columns)
    assert mappings.rows.to_pydict()["external_id_type"] == ["user_id", "anonymous_id"]
    assert traits.rows.to_pydict()["name"] == ["plan"]
    assert withheld_traits(needs.columns) == {"email", "address"}


names = st.sampled_from(["a", "b", "c"])
values = st.recursive(
    st.integers() | st.lists(st.integers(), max_size=2), lambda inner: st.dictionaries(names, inner, max_size=3), max_leaves=8
)


@given(
    st.dictionaries(names, values, max_size=3),
    st.lists(st.lists(names, min_size=1, max_size=3).map(".".join), max_size=3),
    st.sets(st.sampled_from(["ads", "stats"])),
)
def test_a_copy_never_holds_more_than_its_event_and_lacks_exactly_what_is_named(
    properties: dict[str, Any], paths: list[str], purposes: set[str]
) -> None:
    event = granted(builders.track("x", properties=properties), *purposes)
    view = read_batch(EventBatch(events=[event]).SerializeToString()).events
    columns = needs_of([("ads", "w", False, [f"properties.{path}" for path in paths])])["w"].columns
    found = masked(view, [tuple(sorted(purposes))], [0], columns)
    if "ads" in purposes or not paths:
        assert not found
        return
    left = json.loads(found[0].properties)
    for path in paths:
        _drop(properties, path.split("."))
    assert left == properties
    assert json.loads(view[0].properties or b"{}") == json.loads(event.properties or b"{}")  # the others' event is as it was


def _drop(document: Any, path: list[str]) -> None:
    if isinstance(document, dict) and path[0] in document:
        if len(path) == 1:
            del document[path[0]]
        else:
            _drop(document[path[0]], path[1:])
