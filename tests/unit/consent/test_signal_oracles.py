"""Strings made by IAB's reference implementations, committed with what these read in them.

``tests/component/consent/test_consent_oracles.py`` makes new ones; ``node oracle.cjs tcf 9 24`` and ``gpp 4 60`` made these.
"""

import json
from pathlib import Path

from .facts import check_gpp, check_tcf

GOLDEN = Path(__file__).parents[2] / "golden" / "consent"


def test_tc_strings_are_read_as_the_reference_implementation_reads_them() -> None:
    readings = [check_tcf(json.loads(line)) for line in (GOLDEN / "tcf.jsonl").read_text().splitlines()]
    assert {reading.version.split()[3] for reading in readings} == {"2", "4", "5"}


def test_gpp_strings_are_read_as_the_reference_implementation_reads_them() -> None:
    found = [json.loads(line) for line in (GOLDEN / "gpp.jsonl").read_text().splitlines()]
    for facts in found:
        check_gpp(facts)
    assert len({section for facts in found for section in facts["sections"]}) == 24
    assert {facts["sections"]["usnat"]["Version"] for facts in found if "usnat" in facts["sections"]} == {1, 2}
