"""The `cdi` command as a person uses it: `up` in one process, the other commands beside it."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from cdi_cli.suite import Endpoints, find_suite
from cdi_testing import eventually_sync

CDI = Path(sysconfig.get_path("scripts")) / "cdi"

CONFIGURATION = """\
apiVersion: cdi/v1
kind: Source
metadata: {name: web}
spec: {writeKeys: ["env:WEB_KEY"]}
---
apiVersion: cdi/v1
kind: Purpose
metadata: {name: advertising}
spec: {}
---
apiVersion: cdi/v1
kind: Warehouse
metadata: {name: main}
spec: {}
---
apiVersion: cdi/v1
kind: IdentityRules
metadata: {workspace: main}
spec:
  identifiers:
    - {type: member, limit: 2, window: annually, priority: 2, paths: [properties.card.number]}
  blockedValues: ["0815"]
  blockedPatterns: ["test-.*"]
  eventTraits: [plan]
---
apiVersion: cdi/v1
kind: CleanRoom
metadata: {name: signups}
spec:
  purposes: [advertising]
  tables:
    - {name: signed_up, keys: [{column: plan, values: [free, pro]}]}
  partners:
    - {name: brand, tokens: ["env:BRAND_TOKEN"], epsilon: 1}
---
apiVersion: cdi/v1
kind: Destination
metadata: {name: ads}
spec:
  purposes: [advertising]
  webhook: {url: "http://127.0.0.1:9/"}
"""


@dataclass
class Cdi:
    """The command over one state directory."""

    directory: Path

    def run(self, *arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "CDI_DIRECTORY": str(self.directory),
            "COLUMNS": "200",
            "WEB_KEY": "k1",
            "CDI_WRITE_KEY": "k1",
            "BRAND_TOKEN": "t1",
        }
        return subprocess.run(
            [sys.executable, str(CDI), *arguments], env=environment, input=given, capture_output=True, text=True, check=False, timeout=60
        )

    def __call__(self, *arguments: str, given: str | None = None) -> str:
        """The output of a command that must succeed."""
        result = self.run(*arguments, given=given)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout


def start_up(directory: Path, log: Path, *options: str) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, str(CDI), "up", "--directory", str(directory), *options], stdout=output, stderr=subprocess.STDOUT
        )


def all_ready(log: Path) -> bool:
    return log.read_text().count(": ready (pid") >= 6


@pytest.fixture(scope="module")
def cdi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cdi]:
    """A running, configured suite that traces every event; its end is checked too."""
    directory = tmp_path_factory.mktemp("up") / "state"
    log = directory.parent / "up.log"
    up = start_up(directory, log, "--sample-ratio", "1")
    try:
        eventually_sync(lambda: all_ready(log), within=200)
        command = Cdi(directory)
        (directory.parent / "web.yaml").write_text(CONFIGURATION)
        assert command("apply", "-f", str(directory.parent)).count("created (version 1)") == 6
        yield command
        children = psutil.Process(up.pid).children(recursive=True)
        up.send_signal(signal.SIGTERM)
        assert up.wait(150) == 0, log.read_text()
        assert not [child for child in children if child.is_running()]
        assert Endpoints.read(directory) is None
        assert log.read_text().rstrip().endswith("draining\nstopped")
    finally:
        up.kill()
        up.wait()


def track(message_id: str, **more: object) -> str:
    return json.dumps({"type": "track", "event": "Signed Up", "userId": "ada", "messageId": message_id, **more})


def test_apply_again_changes_nothing_and_tells_so(cdi: Cdi) -> None:
    assert cdi("apply", "-f", str(cdi.directory.parent)).count("unchanged (version 1)") == 6


def test_one_event_is_followed_to_every_sink(cdi: Cdi) -> None:
    def sent() -> bool:
        return cdi.run("send", track("m-1", properties={"plan": "free"})).returncode == 0

    eventually_sync(sent)  # a new write key is known within two seconds
    cdi("send", "--file", "-", given=track("m-2") + "\n\n" + track("m-1") + "\n")
    balanced = cdi("audit", "--wait", "--reasons")
    assert "balanced: every accepted event is accounted for at every sink" in balanced
    assert "consent_denied" in balanced

    rows = [json.loads(line) for line in cdi("query", "--json", "SELECT id, plan FROM signed_up ORDER BY id").splitlines()]
    assert rows == [{"id": "m-1", "plan": "free"}, {"id": "m-2", "plan": None}]
    assert cdi("query", "--csv", "SELECT count(*) AS events FROM tracks").splitlines() == ["events", "2"]

    person = json.loads(cdi("profile", "main", "user_id:ada"))
    assert [link["identifier"] for link in person["links"]] == [{"type": "user_id", "value": "ada"}]
    assert [(each["kind"], each["triggering_event_id"]) for each in person["decisions"]] == [("DECISION_KIND_CREATED", "m-1")]
    assert {event["message_id"]: event["properties"] for event in person["events"]} == {"m-1": {"plan": "free"}, "m-2": {}}
    assert json.loads(cdi("profile", "main", person["profile"]["profile_id"])) == person
    assert "nobody is known as user_id:bob" in cdi.run("profile", "main", "user_id:bob").stderr

    explained = cdi("explain", "m-1")
    for text in ("accepted: COLLECTED", "enriched: ENRICHED", "loaded into tracks", "destination:ads", "filtered: consent_denied"):
        assert text in explained
    assert "ada" not in explained

    def traced() -> bool:
        tree = cdi.run("trace", "m-1").stdout
        return all(name in tree for name in ("collect", "enrich", "EvaluateConsent", "load"))

    eventually_sync(traced)
    assert cdi("dead-letters") == "no dead letters\n"
    assert "wrong" not in cdi("doctor")


def test_a_partner_asks_a_clean_room_as_far_as_its_budget_goes(cdi: Cdi) -> None:
    cdi("send", track("m-3", properties={"plan": "free"}))
    cdi("audit", "--wait")
    asked = cdi.run("clean-room", "query", "signups", "signed_up", "--by", "plan", "--epsilon", "0.25", "--token", "t1")
    assert (asked.returncode, asked.stderr) == (0, "2 groups too small; epsilon spent 0.25, left 0.75\n")
    assert "one of the clean room's partners" in cdi.run("clean-room", "query", "signups", "signed_up", "--token", "t2").stderr
    (logged,) = (json.loads(line) for line in cdi("clean-room", "log", "signups", "--json").splitlines())
    assert (logged["partner"], logged["epsilon"], logged["outcome"]) == ("brand", 0.25, "answered")
    assert cdi("clean-room", "budget", "signups", "--partner", "brand").startswith("brand: 0.25 of epsilon 1 spent, renews at ")


def test_a_destination_that_came_later_balances(cdi: Cdi, tmp_path: Path) -> None:
    later = CONFIGURATION.rpartition("---")[2].replace("ads", "later")
    (tmp_path / "later.yaml").write_text(later)
    cdi("apply", "-f", str(tmp_path / "later.yaml"))
    assert "destination:later" in cdi("audit", "--wait")


def test_identity_rules_say_where_identifiers_are_and_which_never_link(cdi: Cdi, tmp_path: Path) -> None:
    def bought(message_id: str, anonymous_id: str, card: str) -> str:
        who = {"anonymousId": anonymous_id, "messageId": message_id}
        return json.dumps({"type": "track", "event": "Bought", "properties": {"card": {"number": card}}, **who})

    cdi("send", "--file", "-", given="\n".join([bought("b-1", "d1", "77"), bought("b-2", "d2", "77"), bought("b-3", "d3", "0815")]))
    cdi("audit", "--wait")
    profile = json.loads(cdi("profile", "main", "member:77"))["profile"]
    assert [each["value"] for each in profile["identifiers"]] == ["d1", "d2", "77"]
    assert "nobody is known" in cdi.run("profile", "main", "member:0815").stderr

    rules = CONFIGURATION.split("---")[3]
    assert "IdentityRules" in rules
    file = tmp_path / "rules.yaml"
    file.write_text(rules.replace("properties.card.number", "card.number").replace("test-.*", "(?=test)"))
    refused = cdi.run("apply", "-f", str(file))
    assert refused.returncode == 1
    assert "rules.identifiers[0].paths[0]: a path is traits, properties or context and then names" in refused.stderr.replace("\n", " ")
    assert "rules.blocked_patterns[0]: not an RE2 expression" in refused.stderr.replace("\n", " ")
    file.write_text(rules.replace("annually", "monthly"))
    assert cdi("apply", "-f", str(file)) == "IdentityRules main/default: changed (version 2)\n"
    assert cdi("apply", "-f", str(file)) == "IdentityRules main/default: unchanged (version 2)\n"


def test_an_audience_is_exported_as_digests_of_who_agreed(cdi: Cdi, tmp_path: Path) -> None:
    def identify(name: str, agrees: bool) -> str:
        consent = {"consent": {"categoryPreferences": {"advertising": agrees}}}
        traits = {"email": f"{name}@Example.com", "phone": "650 555 1212", "plan": "pro"}
        return json.dumps({"type": "identify", "userId": name, "messageId": f"i-{name}", "traits": traits, "context": consent})

    cdi("send", "--file", "-", given=identify("grace", True) + "\n" + identify("mallory", False) + "\n")
    choose = ("audience", "export", "--purpose", "advertising", "--where", "plan=pro", "--country", "us")
    address = hashlib.sha256(b"grace@example.com").hexdigest()

    def exported() -> subprocess.CompletedProcess[str]:
        result = cdi.run(*choose, "--scheme", "google", "--json")
        assert "1 people exported, 1 withheld by consent, 0 without" in result.stderr
        return result

    (line,) = eventually_sync(exported).stdout.splitlines()
    person = json.loads(line)
    assert person["email_sha256"] == [address]
    assert person["phone_sha256"] == [hashlib.sha256(b"+16505551212").hexdigest()]
    file = tmp_path / "audience.csv"
    cdi(*choose, "--scheme", "liveramp", "--profile", person["profile_id"], "--output", str(file))
    number = hashlib.sha1(b"6505551212", usedforsecurity=False).hexdigest()
    assert file.read_text() == f"profile_id,email_sha256,phone_sha1\n{person['profile_id']},{address},{number}\n"
    refused = cdi.run("audience", "export", "--purpose", "nonsense", "--scheme", "meta", "--output", str(tmp_path / "none.csv"))
    assert (refused.returncode, "no such purpose" in refused.stderr) == (1, True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["audience.csv"]


def test_what_cannot_be_done_is_told_in_one_line(cdi: Cdi, tmp_path: Path) -> None:
    refused = cdi.run("send", json.dumps({"type": "track", "event": "Signed Up"}))
    assert (refused.returncode, refused.stderr.startswith("error: the collector answered 400")) == (1, True)
    unknown = cdi.run("explain", "m-0")
    assert (unknown.returncode, "nobody knows m-0" in unknown.stderr) == (1, True)
    query = cdi.run("query", "DROP TABLE tracks")
    assert (query.returncode, "query_refused" in query.stderr) == (1, True)
    nowhere = Cdi(tmp_path).run("audit")
    assert (nowhere.returncode, "no suite runs in" in nowhere.stderr) == (1, True)
    for result in (refused, unknown, query, nowhere):
        assert "Traceback" not in result.stderr


def test_a_crashed_service_comes_back_by_itself(cdi: Cdi) -> None:
    before = find_suite(cdi.directory).services["identity"].pid
    os.kill(before, signal.SIGKILL)
    eventually_sync(lambda: find_suite(cdi.directory).services["identity"].pid != before, within=60)
