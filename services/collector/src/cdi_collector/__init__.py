"""CDI collector: the only public door for events.

Serves: HTTP (Segment's and Snowplow's shapes, docs/http.md), gRPC ``CollectorService`` and ``SourcesService``.
Consumes: nothing. Produces: COLLECTED (accepted events), REJECTED (single bad events of an HTTP batch).
Owns: sources and the hashes of their write keys; events that wait on its disk while NATS is away.
Invariants: success is answered only after JetStream, or the disk, has stored the events; events of one person leave in the order in
which they came; one bad event never costs the others of its batch; what a stranger can send is bounded in size, depth and time.
Deliberately absent: validation against tracking plans, consent, deduplication (enrichment does these).
"""
