"""CDI enrichment: what stands between an accepted event and every sink.

Consumes: COLLECTED. Asks: consent (EvaluateConsent) and identity (ResolveIdentities), one call per batch each.
Produces: ENRICHED, at most one message per message of COLLECTED and with its sequence; REJECTED.
Serves: EnrichmentService (tracking plans, explain, counts).
Owns: tracking plans, the claims of the dedupe window, progress and outcome counts per partition.
Invariants: an event reaches ENRICHED or REJECTED or is a duplicate of one that does; order per partition is kept; nothing is
skipped while a dependency is away; what may not be linked to a person is never sent to identity.
Deliberately absent: transformations (a later step of the pipeline), retries per event, any state in the process that a replica lacks.
"""
