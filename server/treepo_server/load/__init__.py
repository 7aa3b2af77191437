"""Who may run a path now: slots, fair shares between trees, ranks, and how full the KV cache is.

It puts a governor between the sampler and the engine. It knows trees only as seats, and nothing of
requests or of HTTP.
"""
