"""The stand-in for the vendor: a local server that answers as the API does and streams, with invented prices.

For trying out cron set-ups without a key, for this project's tests and for its benchmarks. It knows nothing of
the tool but the names of the markets, the plans and the exchanges' calendar: it is written from the vendor's side of
the wire, so that it can catch the tool out.
"""
