"""CDI identity: the identity graph, resolved in batches.

Serves: cdi.identity.v1.IdentityService (resolve, read, rules, merge, split, explain),
ProfilesService (batches, lists, events, links, watching), AudiencesService (exports; asks consent), ComputedTraitsService.
Consumes: stream ENRICHED, while there is a computed trait.
Produces: stream IDENTITY, subject cdi.identity.changed (GraphChanged), through an outbox.
Owns: profiles, identifiers, traits, rules, decisions, the log of merges, separations, computed traits with what events gave to them.
Invariants: an identifier has one profile; changes of a workspace happen one after the other, whatever the number of replicas; a batch
done again answers the same; limits protect a profile from strangers, and what was left out is said; every change has its decision.
Deliberately absent: fuzzy matching, a cache of the graph, spans per event (only for sampled ones).
"""
