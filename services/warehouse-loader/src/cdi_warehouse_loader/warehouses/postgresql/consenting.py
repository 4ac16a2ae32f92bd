"""Queries that may see only what people have consented to: row security on every table.

A policy shows rows of events that carry all the purposes that are asked for, and other rows only to who asks for none. What is asked for is
written down by the loader's own role, under the login and the number of the server's process that answers; a query can change none of them.
So it may name tables as it likes. The owner of a table is not held to its policies, which is why such questions need a login of their own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Final

from cdi_kernel.faults import Unavailable
from cdi_warehouse_loader.ports import Question
from cdi_warehouse_loader.warehouses.answers import refused
from cdi_warehouse_loader.warehouses.postgresql.session import Refused, Session
from cdi_warehouse_loader.warehouses.postgresql.sql import literal

_ASK: Final = """insert into _cdi.questions values ($1, $2, $3::text[])
    on conflict (backend) do update set login = excluded.login, purposes = excluded.purposes"""
_ASK_NO_MORE: Final = "delete from _cdi.questions where backend = $1"
_WHO: Final = "select pg_backend_pid(), session_user::text"

# Whether this role is held to the policies of each table: its owner is not, nor who has the owner's rights or may pass policies by. And
# partitions, which have no policies of their own, lie in the loader's schema.
_HELD: Final = """select not has_schema_privilege('_cdi', 'usage') and coalesce(bool_and(row_security_active(c.oid)), true)
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p') and not c.relispartition and n.nspname in ({schemas})"""


class Asking:
    """The session of people's queries.

    Args:
        session: theirs.
        writing: a session of the loader's role in the same thread; ``None``: theirs is of that role, too.
    """

    def __init__(self, session: Session, writing: Session | None) -> None:
        self.session = session
        self._writing = writing

    @contextlib.contextmanager
    def limited(self, question: Question, schemas: Iterable[str]) -> Iterator[None]:
        """Inside a transaction of the session, for the time of the block: it sees what the question may.

        Args:
            question: with its purposes.
            schemas: of the warehouse.

        Raises:
            InvalidArgument: its purposes cannot be seen to here.
        """
        writing = self._writing
        if writing is None:
            if question.purposes:
                raise refused("a question with purposes needs a login of its own (query_user in the warehouse's URL)")
            yield
            return
        ((backend, login),) = self.session.rows(_WHO)
        if not question.purposes:
            # A loader that died may have left what an earlier process of that number was asked.
            writing.run(_ASK_NO_MORE, backend)
            yield
            return
        ((held,),) = self.session.rows(_HELD.format(schemas=", ".join(map(literal, ("", *schemas)))))
        if not held:
            raise refused("the login of queries gets past row security: it owns tables, bypasses policies, or may use the schema _cdi")
        writing.run(_ASK, backend, login, sorted(question.purposes))
        try:
            yield
        finally:
            with contextlib.suppress(Refused, Unavailable):  # the next question writes over it
                writing.run(_ASK_NO_MORE, backend)
