"""Whose a past event is."""

from cdi_identity.domain.history import HISTORY_US, PROFILE_ID, PastEvent, Place, owner, search


def event(profile_id: str = "p", user_id: str = "", anonymous_id: str = "") -> PastEvent:
    return PastEvent("m", "track", "Paid", "web", 5, profile_id, user_id, anonymous_id, "main", "paid")


def test_an_event_follows_its_profile_into_the_one_that_it_became_part_of() -> None:
    assert owner(event("old"), {(PROFILE_ID, "old"): "canonical"}) == "canonical"


def test_after_a_split_an_event_goes_with_its_strongest_identifier() -> None:
    owners = {(PROFILE_ID, "p"): "p", ("user_id", "ada"): "split-off", ("anonymous_id", "phone"): "p"}
    assert owner(event("p", "ada", "phone"), owners) == "split-off"
    assert owner(event("p", "", "phone"), owners) == "p"


def test_another_users_event_on_a_shared_device_stays_theirs() -> None:
    owners = {(PROFILE_ID, "bob"): "bob", ("user_id", "bob"): "bob", ("anonymous_id", "tablet"): "ada"}
    assert owner(event("bob", "bob", "tablet"), owners) == "bob"


def test_an_identifier_that_never_linked_does_not_decide() -> None:
    assert owner(event("p", "null", "phone"), {(PROFILE_ID, "p"): "p", ("anonymous_id", "phone"): "p"}) == "p"


def test_an_event_that_may_not_be_linked_is_nobodys_whatever_it_carries() -> None:
    assert owner(event("fallback", "ada"), {("user_id", "ada"): "p"}) is None


def test_a_search_names_what_the_warehouse_has_columns_for() -> None:
    keys = [(PROFILE_ID, "p"), (PROFILE_ID, "q"), ("anonymous_id", "a"), ("email", "e"), ("user_id", "u")]
    found = search("w", keys, ["Paid"], HISTORY_US + 7, Place(9, "m"))
    assert (found.profile_ids, found.user_ids, found.anonymous_ids) == (["p", "q"], ["u"], ["a"])
    assert (found.since_us, found.before, found.names) == (7, Place(9, "m"), ["Paid"])
