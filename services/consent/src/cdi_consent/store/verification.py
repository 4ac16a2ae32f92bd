"""Reading whole chains to verify them, as they all are at one moment."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import groupby
from typing import Final

from cdi_consent.domain.chain import Link
from cdi_consent.domain.decisions import Subject
from cdi_consent.ports import Chain
from cdi_consent.store.lines import LINE, line_of
from cdi_runtime.store import Database, raw

SUBJECTS_PER_PAGE: Final = 500

_HEADS: Final = """
SELECT subject_type, subject_id, chain_position, previous_hash, hash FROM chain_heads
WHERE workspace_id = $1 AND (subject_type, subject_id) > ($2, $3) ORDER BY subject_type, subject_id LIMIT $4
"""
_HEAD: Final = """
SELECT chain_position, previous_hash, hash FROM chain_heads WHERE workspace_id = $1 AND subject_type = $2 AND subject_id = $3
"""
_OF_SUBJECT: Final = f"{LINE} WHERE l.workspace_id = $1 AND l.subject_type = $2 AND l.subject_id = $3 ORDER BY l.chain_position"
_BETWEEN: Final = f"""
{LINE} WHERE l.workspace_id = $1 AND (l.subject_type, l.subject_id) > ($2, $3) AND ($4 OR (l.subject_type, l.subject_id) <= ($5, $6))
ORDER BY l.subject_type, l.subject_id, l.chain_position
"""


async def chains(database: Database, workspace_id: str, subject: Subject | None) -> AsyncIterator[Chain]:
    """The chain of a subject, or all of a workspace, each with its head. Raises ``Unavailable``."""
    async with database.transaction() as connection:
        driver = raw(connection)
        # What is recorded meanwhile must not look like a cut end.
        await driver.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        if subject is not None:
            row = await driver.fetchrow(_HEAD, *subject)
            lines = list(map(line_of, await driver.fetch(_OF_SUBJECT, *subject)))
            if lines or row is not None:
                yield Chain(subject, lines, None if row is None else Link(*row))
            return
        after, is_last = ("", ""), False
        while not is_last:
            page = await driver.fetch(_HEADS, workspace_id, *after, SUBJECTS_PER_PAGE)
            is_last = len(page) < SUBJECTS_PER_PAGE
            upto = ("", "") if is_last else (page[-1][0], page[-1][1])
            # Between the heads there may be lines of subjects whose head is gone.
            found = map(line_of, await driver.fetch(_BETWEEN, workspace_id, *after, is_last, *upto))
            lines_of = {own: list(group) for own, group in groupby(found, key=lambda line: line.decision.subject)}
            heads = {(workspace_id, row[0], row[1]): Link(*row[2:]) for row in page}
            for own in sorted(lines_of.keys() | heads.keys()):
                yield Chain(own, lines_of.get(own, []), heads.get(own))
            after = upto
