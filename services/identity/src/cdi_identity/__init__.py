"""CDI identity: the identity graph, resolved in batches.

Serves: cdi.identity.v1.IdentityService (ResolveIdentities, GetProfile), AudiencesService (ExportAudience; asks consent).
Produces: stream IDENTITY, subject cdi.identity.merged (ProfilesMerged), through an outbox.
Owns: profiles, identifiers, the log of merges, traits.
Invariants: an identifier has one profile; changes of a workspace happen one after the other, whatever the number of replicas; a batch
done again answers the same; limits protect a profile from strangers, and what was left out is said.
Deliberately absent: fuzzy matching, a cache of the graph, spans per event (only for sampled ones), rules per workspace.
"""
