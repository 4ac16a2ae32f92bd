"""What peers are asked and answer."""

from cdi.consent.v1.consent_service_pb2 import EvaluatedConsent
from cdi.event.v1.event_pb2 import ConsentResult, Event, IdentityResult
from cdi.identity.v1.identity_service_pb2 import ResolvedIdentity
from cdi.identity.v1.profile_pb2 import Identifier
from cdi_enrichment import convert
from cdi_enrichment.domain.claims import Place
from cdi_enrichment.domain.passage import Passage
from cdi_enrichment.domain.tracking_plan import PlanSnapshot
from cdi_testing.builders import identify, track


def test_the_answer_of_consent_and_the_event_s_part_have_the_same_fields() -> None:
    def fields(message: type[ConsentResult] | type[EvaluatedConsent]) -> list[tuple[str, int, int, bool]]:
        return [(field.name, field.number, field.type, field.is_repeated) for field in message.DESCRIPTOR.fields]

    assert fields(ConsentResult) == fields(EvaluatedConsent)


def test_a_later_answer_replaces_an_earlier_one() -> None:
    passage = Passage(track(), Place(1, 0), 0)
    convert.set_consent(passage, EvaluatedConsent(granted_purposes=["a"], decision_ids=["d"], linkable=True))
    assert written(passage).consent.linkable
    convert.set_consent(passage, EvaluatedConsent(granted_purposes=["b"]))
    assert passage.linkable is False
    assert written(passage).consent == ConsentResult(granted_purposes=["b"])
    convert.set_identity(passage, ResolvedIdentity(profile_id="p", created=True, merged_profile_ids=["q"]))
    assert written(passage).identity == IdentityResult(profile_id="p", created=True, merged_profile_ids=["q"])
    convert.set_fallback_identity(passage)
    assert written(passage).identity.fallback
    convert.set_identity(passage, ResolvedIdentity(profile_id="r"))
    assert written(passage).identity == IdentityResult(profile_id="r")


def test_what_identity_left_out_does_not_go_into_the_event() -> None:
    passage = Passage(track(), Place(1, 0), 0)
    convert.set_identity(passage, ResolvedIdentity(profile_id="p", demoted_identifiers=[Identifier(type="email", value="a@b.de")]))
    assert written(passage).identity == IdentityResult(profile_id="p")


def test_an_event_that_comes_again_loses_what_its_first_pass_added() -> None:
    event = track(context={"externalIds": [{"id": "x", "type": "GA"}]})
    collected = Event.FromString(event.SerializeToString())
    event.external_ids.add(type="old", value="old")
    event.enrichments.geo.country = "DE"
    event.consent.granted_purposes.append("old")
    event.validation.plan = "old"
    passage = Passage(event, Place(1, 0), 0, traceparent="00-1-2-01")
    assert passage.validate(PlanSnapshot()) is None
    convert.set_external_ids(passage)
    collected.external_ids.add(type="ga", value="x")
    collected.traceparent = "00-1-2-01"
    assert written(passage) == collected


def written(passage: Passage) -> Event:
    return Event.FromString(passage.serialized())


def test_requests_carry_what_the_event_says() -> None:
    event = identify(anonymous_id="a", user_id="u", context={"consent": {"categoryPreferences": {"ads": False}}})
    passage = Passage(event, Place(1, 0), 0, traceparent="00-1-2-01")
    assert passage.validate(PlanSnapshot()) is None
    (asked,) = convert.consent_request([passage]).inputs
    assert (asked.user_id, asked.anonymous_id, asked.traceparent, asked.event_time) == ("u", "a", "00-1-2-01", event.event_time)
    assert [(preference.category, preference.granted) for preference in asked.preferences] == [("ads", False)]
    (given,) = convert.identity_request([passage]).inputs
    assert [identifier.type for identifier in given.identifiers] == ["user_id", "email", "anonymous_id"]
    assert (given.message_id, given.workspace_id, given.event_time) == (event.message_id, event.workspace_id, event.event_time)
    assert (given.traits, given.traceparent) == (event.traits, "00-1-2-01")
