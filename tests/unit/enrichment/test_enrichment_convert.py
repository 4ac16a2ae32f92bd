"""What peers are asked and answer."""

from hypothesis import given
from hypothesis import strategies as st

from cdi.consent.v1.consent_service_pb2 import ConsentInput, EvaluateConsentRequest, EvaluatedConsent
from cdi.event.v1.event_pb2 import ConsentResult, Event, IdentityResult
from cdi.identity.v1.identity_service_pb2 import IdentityInput, ResolvedIdentity, ResolveIdentitiesRequest
from cdi.identity.v1.profile_pb2 import Identifier
from cdi.identity.v1.rules_pb2 import IdentifierRule
from cdi_enrichment import convert
from cdi_enrichment.domain.claims import Place
from cdi_enrichment.domain.passage import Passage
from cdi_enrichment.domain.places import places_of
from cdi_enrichment.domain.tracking_plan import PlanSnapshot
from cdi_testing.builders import identify, track


def test_the_answer_of_consent_and_the_event_s_part_have_the_same_fields() -> None:
    def fields(message: type[ConsentResult] | type[EvaluatedConsent]) -> list[tuple[str, int, int, bool]]:
        return [(field.name, field.number, field.type, field.is_repeated) for field in message.DESCRIPTOR.fields]

    # What is suppressed becomes no part of an event: the event ends there.
    assert fields(ConsentResult) == [field for field in fields(EvaluatedConsent) if field[0] != "suppressed"]


def test_a_later_answer_replaces_an_earlier_one() -> None:
    passage = Passage(track(), Place(1, 0), 0)
    convert.set_consent(passage, EvaluatedConsent(granted_purposes=["a"], decision_ids=["d"], linkable=True))
    assert written(passage).consent.linkable
    convert.set_consent(passage, EvaluatedConsent(granted_purposes=["b"]))
    assert passage.linkable is False
    assert written(passage).consent == ConsentResult(granted_purposes=["b"])
    convert.set_identity(passage, ResolvedIdentity(profile_id="p", created=True, merged_profile_ids=["q"]).SerializeToString())
    assert written(passage).identity == IdentityResult(profile_id="p", created=True, merged_profile_ids=["q"])
    convert.set_fallback_identity(passage)
    assert written(passage).identity.fallback
    convert.set_identity(passage, ResolvedIdentity(profile_id="r").SerializeToString())
    assert written(passage).identity == IdentityResult(profile_id="r")


def test_of_what_identity_left_out_only_the_type_goes_into_the_event() -> None:
    passage = Passage(track(), Place(1, 0), 0)
    demoted = [Identifier(type="email", value="a@b.de")]
    convert.set_identity(passage, ResolvedIdentity(profile_id="p", demoted_identifiers=demoted).SerializeToString())
    assert written(passage).identity == IdentityResult(profile_id="p", demoted_identifier_types=["email"])


@given(
    st.builds(
        ResolvedIdentity,
        profile_id=st.text(max_size=200),
        created=st.booleans(),
        merged_profile_ids=st.lists(st.text(max_size=40), max_size=2),
        demoted_identifiers=st.lists(st.builds(Identifier, type=st.text(max_size=9), value=st.text(max_size=9)), max_size=2),
        chosen_traits=st.binary(max_size=5_000),
    )
)
def test_an_event_keeps_the_profile_whatever_else_the_answer_says(resolved: ResolvedIdentity) -> None:
    passage = Passage(track(), Place(1, 0), 0)
    convert.set_identity(passage, resolved.SerializeToString())
    assert written(passage).identity == IdentityResult(
        profile_id=resolved.profile_id,
        created=resolved.created,
        merged_profile_ids=resolved.merged_profile_ids,
        traits=resolved.chosen_traits,
        demoted_identifier_types=[identifier.type for identifier in resolved.demoted_identifiers],
    )


def test_an_event_that_comes_again_loses_what_its_first_pass_added() -> None:
    event = track(context={"externalIds": [{"id": "x", "type": "GA"}]})
    collected = Event.FromString(event.SerializeToString())
    event.external_ids.add(type="old", value="old")
    event.enrichments.geo.country = "DE"
    event.consent.granted_purposes.append("old")
    event.validation.plan = "old"
    passage = Passage(event, Place(1, 0), 0, event.SerializeToString(), traceparent="00-1-2-01")
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
    (asked,) = EvaluateConsentRequest.FromString(b"".join(convert.consent_inputs([passage]))).inputs
    assert (asked.user_id, asked.anonymous_id, asked.traceparent, asked.event_time) == ("u", "a", "00-1-2-01", event.event_time)
    assert [(preference.category, preference.granted) for preference in asked.preferences] == [("ads", False)]
    assert (asked.message_id, asked.workspace_id) == (event.message_id, event.workspace_id)
    (known,) = ResolveIdentitiesRequest.FromString(b"".join(convert.identity_inputs([passage]))).inputs
    assert [identifier.type for identifier in known.identifiers] == ["user_id", "email", "anonymous_id"]
    assert (known.message_id, known.workspace_id, known.event_time) == (event.message_id, event.workspace_id, event.event_time)
    assert (known.traits, known.traceparent, known.event_type) == (event.traits, "00-1-2-01", "identify")
    places = {event.workspace_id: places_of([IdentifierRule(type="mail", paths=["traits.email"])])}
    (known,) = ResolveIdentitiesRequest.FromString(b"".join(convert.identity_inputs([passage], places))).inputs
    assert [identifier.type for identifier in known.identifiers] == ["user_id", "email", "anonymous_id", "mail"]


def test_the_time_is_told_only_with_answers() -> None:
    passage = Passage(track(user_id="u", context={"consent": "yes"}), Place(1, 0), 0)
    assert passage.validate(PlanSnapshot()) is None
    (asked,) = EvaluateConsentRequest.FromString(b"".join(convert.consent_inputs([passage]))).inputs
    assert not asked.preferences
    assert not asked.HasField("event_time")


def test_an_id_of_the_collector_s_full_length_fits() -> None:
    longest = "\N{GRINNING FACE}" * 512
    passage = Passage(track(user_id=longest, anonymous_id=longest), Place(1, 0), 0)
    assert passage.validate(PlanSnapshot()) is None
    (asked,) = EvaluateConsentRequest.FromString(b"".join(convert.consent_inputs([passage]))).inputs
    assert (asked.user_id, asked.anonymous_id) == (longest, longest)
    (known,) = ResolveIdentitiesRequest.FromString(b"".join(convert.identity_inputs([passage]))).inputs
    assert not known.identifiers


def test_both_requests_name_an_event_with_the_same_fields() -> None:
    for name in ("workspace_id", "message_id"):
        assert ConsentInput.DESCRIPTOR.fields_by_name[name].number == IdentityInput.DESCRIPTOR.fields_by_name[name].number
