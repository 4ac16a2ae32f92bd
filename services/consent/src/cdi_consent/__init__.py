"""CDI consent: what a person's data may be used for, the proof of it, and what people ask about their data.

Serves ``cdi.consent.v1.ConsentService`` and ``PrivacyService``; produces ``DecisionsRecorded`` on CONSENT and ``PrivacyOrder`` on PRIVACY
through an outbox; consumes IDENTITY and CONSENT. Owns purposes and policies with all versions, the append-only ledger of decisions, a chain
per subject, the decisions in force, tombstones, privacy requests.
Invariants: the ledger is never changed, except that an erasure takes the person out of a line; the latest decision of a subject on a
purpose is in force, at the same instant the denial; between the subjects of one event the stricter answer wins; an answer that changes
nothing is not recorded; doing it again gives the same; an event of somebody who is suppressed goes nowhere.
Deliberately absent: a cache of decisions. A withdrawal through any replica holds for the next evaluation on every replica.
"""
