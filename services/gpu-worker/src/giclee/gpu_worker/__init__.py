"""The workers of a pool: claim a routed candidate, have a provider make its image, store the bytes, say so."""
