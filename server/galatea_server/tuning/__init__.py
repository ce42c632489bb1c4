"""Finding out by measurement how a generator is served best on the machine at hand.

Everything runs on the real embedded server; see :class:`galatea_server.tuning.search.Search`.
"""
