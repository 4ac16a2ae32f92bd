"""YAML documents: what is let through, and that every complaint names file, line and field."""

from pathlib import Path

import pytest

from cdi_cli.documents import APPLY_ORDER, DocumentError, read_documents
from cdi_cli.documents.collector import SourceDocument
from cdi_cli.documents.enrichment import TrackingPlanDocument
from cdi_cli.documents.identity import ComputedTraitDocument, IdentityRulesDocument
from cdi_cli.documents.router import DestinationDocument

SOURCE = """\
apiVersion: cdi/v1
kind: Source
metadata: {workspace: main, name: web}
spec:
  writeKeys: [k1]
"""


def written(tmp_path: Path, text: str, name: str = "shop.yaml") -> Path:
    file = tmp_path / name
    file.write_text(text)
    return file


def complaint(tmp_path: Path, text: str) -> str:
    with pytest.raises(DocumentError) as raised:
        read_documents([written(tmp_path, text)])
    return str(raised.value).replace(str(tmp_path) + "/", "")


def test_several_documents_of_a_file_and_a_directory(tmp_path: Path) -> None:
    written(tmp_path, SOURCE + "---\n" + SOURCE.replace("web", "app") + "---\n", "b.yaml")
    written(tmp_path, SOURCE.replace("web", "api"), "a.yml")
    written(tmp_path, "not a document", "notes.txt")
    assert [document.metadata.name for document in read_documents([tmp_path])] == ["api", "web", "app"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SOURCE.replace("writeKeys: [k1]", "writeKeys: []"), "shop.yaml:5: spec.writeKeys: List should have at least 1 item"),
        (SOURCE.replace("writeKeys: [k1]", "writeKeys: [k1, 7]"), "shop.yaml:5: spec.writeKeys[1]: Input should be a valid string"),
        (SOURCE + "  disbled: true\n", "shop.yaml:6: spec.disbled: unknown field"),
        (SOURCE + "  disabled: 'yes'\n", "shop.yaml:6: spec.disabled: Input should be a valid boolean"),
        (SOURCE.replace("  writeKeys: [k1]\n", "  disabled: true\n"), "shop.yaml:4: spec.writeKeys: Field required"),
        (
            SOURCE.replace("kind: Source", "kind: Sauce"),
            "shop.yaml:2: kind: expected one of CleanRoom, ComputedTrait, ConsentPolicy, Destination, IdentityRules, Purpose, Source",
        ),
        (SOURCE.replace("kind: Source\n", ""), "shop.yaml:1: kind: expected one of"),
        (SOURCE.replace("cdi/v1", "cdi/v2"), "shop.yaml:1: apiVersion: Input should be 'cdi/v1'"),
        (SOURCE.replace("name: web", "name: a b"), "shop.yaml:3: metadata.name: String should match pattern"),
        (SOURCE.replace("[k1]", "[env:CDI_TEST_ABSENT]"), "shop.yaml:5: spec.writeKeys[0]: the environment has no CDI_TEST_ABSENT"),
        (
            SOURCE + "  webhook: {signature: {header: X, secrets: [plain]}}\n",
            "shop.yaml:6: spec.webhook.signature.secrets[0]: a secret is given by reference: env:NAME",
        ),
        (SOURCE + "  webhook: {mapping: {evnt: x}}\n", "spec.webhook.mapping.evnt: unknown field"),
        (SOURCE + "---\n" + SOURCE, "shop.yaml:7: Source web is given twice, first at shop.yaml:1"),
        (SOURCE + "spec: {}\n", "shop.yaml:6: spec is given twice"),
        ("[1, 2]\n", "shop.yaml:1: a document is a mapping"),
        ("a: [\n", "shop.yaml:2: not YAML"),
        ("a: !!python/object/apply:os.system [ls]\n", "shop.yaml:1: not YAML: could not determine a constructor"),
    ],
)
def test_a_wrong_document_is_shown_where_it_is_wrong(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in complaint(tmp_path, text)


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    text = SOURCE.replace("[k1]", "[]") + "  more: 1\n---\n" + SOURCE.replace("kind: Source", "kind: X")
    assert len(complaint(tmp_path, text).splitlines()) == 3


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="does not exist"):
        read_documents([tmp_path / "absent.yaml"])


def test_a_secret_by_reference_is_read_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_KEY", "s3cret")
    (document,) = read_documents([written(tmp_path, SOURCE.replace("[k1]", "[env:SHOP_KEY]"))])
    assert isinstance(document, SourceDocument)
    assert document.spec.write_keys == ["s3cret"]


DESTINATION = """\
apiVersion: cdi/v1
kind: Destination
metadata: {name: ads}
spec:
  purposes: [advertising]
  webhook:
    url: https://ads.example/in
    signingSecret: %s
"""


def test_a_secret_of_the_router_stays_a_reference_and_is_refused_in_clear(tmp_path: Path) -> None:
    (document,) = read_documents([written(tmp_path, DESTINATION % "env:ADS_SECRET")])
    assert isinstance(document, DestinationDocument)
    assert document.metadata.workspace == "main"
    assert document.spec.webhook.signing_secret == "env:ADS_SECRET"
    assert "shop.yaml:8: spec.webhook.signingSecret: a secret is given by reference" in complaint(tmp_path, DESTINATION % "hunter2")


def test_a_schema_is_kept_as_it_stands_dates_as_text(tmp_path: Path) -> None:
    text = """\
apiVersion: cdi/v1
kind: TrackingPlan
metadata: {name: shop}
spec:
  sources: [web]
  rules:
    - type: track
      event: Signed Up
      schema: {properties: {since: {const: 2024-01-01}}}
"""
    (document,) = read_documents([written(tmp_path, text)])
    assert isinstance(document, TrackingPlanDocument)
    assert document.spec.rules[0].json_schema == {"properties": {"since": {"const": "2024-01-01"}}}
    assert document.spec.violations == "block"


def test_the_examples_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_WRITE_KEY", "k")
    monkeypatch.setenv("SHOP_WEBHOOK_URL", "http://127.0.0.1:1/")
    monkeypatch.setenv("BRAND_TOKEN", "t")
    examples = Path(__file__).parents[3] / "examples"
    documents = read_documents([examples / "shop.yaml", examples / "clean-room.yaml"])
    assert {document.kind for document in documents} == set(APPLY_ORDER)


def test_a_source_may_say_what_it_protects(tmp_path: Path) -> None:
    spec = "  allowedOrigins: ['https://shop.example']\n  ipHandling: drop\n  rateLimit: {eventsPerSecond: 2.5, burst: 10}\n"
    (document,) = read_documents([written(tmp_path, SOURCE + spec)])
    assert isinstance(document, SourceDocument)
    assert document.spec.rate_limit is not None
    assert (document.spec.allowed_origins, document.spec.ip_handling) == (["https://shop.example"], "drop")
    assert (document.spec.rate_limit.events_per_second, document.spec.rate_limit.burst) == (2.5, 10)
    assert "ipHandling" in complaint(tmp_path, SOURCE + "  ipHandling: hide\n")
    assert "eventsPerSecond" in complaint(tmp_path, SOURCE + "  rateLimit: {eventsPerSecond: 0}\n")


COMPUTED_TRAIT = """\
apiVersion: cdi/v1
kind: ComputedTrait
metadata: {name: value}
spec:
  aggregation: %s
  eventNames: [Order Completed]
  path: properties.total
  conditions:
    - {path: properties.currency, operator: notIn, values: [USD, 3, true]}
"""


def test_a_computed_trait_is_read_with_values_of_any_type(tmp_path: Path) -> None:
    (document,) = read_documents([written(tmp_path, COMPUTED_TRAIT % "sum")])
    assert isinstance(document, ComputedTraitDocument)
    assert document.spec.event_type == "track"
    assert document.spec.conditions[0].values == ["USD", 3, True]
    assert "shop.yaml:5: spec.aggregation" in complaint(tmp_path, COMPUTED_TRAIT % "total")


IDENTITY_RULES = """\
apiVersion: cdi/v1
kind: IdentityRules
metadata: {workspace: main}
spec:
  identifiers:
    - {type: phone, limit: 2, window: %s, priority: 3, paths: [traits.phone]}
  blockedValues: ["0000-test"]
  eventTraits: [lifetime_value]
"""


def test_identity_rules_are_one_document_of_a_workspace(tmp_path: Path) -> None:
    (document,) = read_documents([written(tmp_path, IDENTITY_RULES % "weekly")])
    assert isinstance(document, IdentityRulesDocument)
    assert (document.metadata.name, document.spec.event_traits) == ("default", ["lifetime_value"])
    assert (document.spec.identifiers[0].window, document.spec.identifiers[0].paths) == ("weekly", ["traits.phone"])
    text = IDENTITY_RULES % "daily"
    text = text.replace("{workspace: main}", "{name: mine}").replace('["0000-test"]', "[-1]").replace("limit: 2", "limit: -2")
    assert [line.partition(": Input should be")[0] for line in complaint(tmp_path, text).splitlines()] == [
        "shop.yaml:3: metadata.name",
        "shop.yaml:6: spec.identifiers[0].limit",
        "shop.yaml:6: spec.identifiers[0].window",
        "shop.yaml:7: spec.blockedValues[0]",
    ]
    twice = f"{IDENTITY_RULES % 'ever'}---\n{IDENTITY_RULES % 'ever'}"
    assert "shop.yaml:10: IdentityRules default is given twice, first at shop.yaml:1" in complaint(tmp_path, twice)
    huge = IDENTITY_RULES.replace("limit: 2", "limit: 5000000000") % "ever"
    assert "spec.identifiers[0].limit: Input should be less than" in complaint(tmp_path, huge)
