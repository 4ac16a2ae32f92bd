"""What peers are asked and answer."""

from cdi.consent.v1.consent_service_pb2 import EvaluatedConsent
from cdi.event.v1.event_pb2 import ConsentResult
from cdi.identity.v1.identity_service_pb2 import ResolvedIdentity
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
    event = track()
    convert.set_consent(event, EvaluatedConsent(granted_purposes=["a"], decision_ids=["d"], linkable=True))
    convert.set_consent(event, EvaluatedConsent(granted_purposes=["b"]))
    assert event.consent == ConsentResult(granted_purposes=["b"])
    convert.set_identity(event, ResolvedIdentity(profile_id="p", created=True, merged_profile_ids=["q"]))
    convert.set_identity(event, ResolvedIdentity(profile_id="r"))
    assert (event.identity.profile_id, event.identity.created, list(event.identity.merged_profile_ids)) == ("r", False, [])
    convert.set_fallback_identity(event)
    assert event.identity.fallback
    convert.set_identity(event, ResolvedIdentity(profile_id="r"))
    assert not event.identity.fallback


def test_requests_carry_what_the_event_says() -> None:
    event = identify(anonymous_id="a", user_id="u", context={"consent": {"categoryPreferences": {"ads": False}}})
    passage = Passage(event, Place(1, 0), 0, b"", traceparent="00-1-2-01")
    assert passage.validate(PlanSnapshot()) is None
    (asked,) = convert.consent_request([passage]).inputs
    assert (asked.user_id, asked.anonymous_id, asked.traceparent, asked.event_time) == ("u", "a", "00-1-2-01", event.event_time)
    assert [(preference.category, preference.granted) for preference in asked.preferences] == [("ads", False)]
    (given,) = convert.identity_request([passage]).inputs
    assert [identifier.type for identifier in given.identifiers] == ["user_id", "email", "anonymous_id"]
    assert (given.traits, given.traceparent) == (event.traits, "00-1-2-01")
