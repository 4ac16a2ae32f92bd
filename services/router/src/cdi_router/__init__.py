"""CDI router: delivery to destinations, isolated and in order per person.

Consumes: ENRICHED, one reader per destination. Serves: ``cdi.router.v1.RouterService``. Produces: HTTP requests to destinations.
Owns: destinations, what waits for a retry, given-up deliveries, what consent held back at delivery, progress and counts.
Invariants: no event of a person is sent while an earlier one of the same person waits; consent is asked when an event is sent,
not only when it was enriched; one destination's failures never touch another; every event is counted once per destination.
Deliberately absent: a jobs table (the stream is the queue), switching order off for busy people, vendor code outside ``destinations/``.
"""
