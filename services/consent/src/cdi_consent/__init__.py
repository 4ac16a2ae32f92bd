"""CDI consent: what a person's data may be used for, and the proof of it.

Serves ``cdi.consent.v1.ConsentService``; produces ``DecisionsRecorded`` on CONSENT through an outbox; consumes IDENTITY and CONSENT.
Owns the purposes and policies with all their versions, the append-only ledger of decisions, a chain per subject, and the decisions in force.
Invariants: the ledger is never changed; the latest decision of a subject on a purpose is in force, at the same instant the denial;
between the subjects of one event the stricter answer wins; an answer that changes nothing is not recorded; doing it again gives the same.
Deliberately absent: a cache of decisions. A withdrawal through any replica holds for the next evaluation on every replica.
"""
