"""The stand-in for the vendor: a local server that answers as the API does and streams, with invented prices.

For trying out cron set-ups without a key, for this project's tests and for its benchmarks. It knows nothing of
the tool but the names of the markets, the plans and the exchanges' calendar: it is written from the vendor's side of
the wire, so that it can catch the tool out.

    server      the Sandbox: key, plan, limit, life and death
    window      the strict sliding window that counts every request
    wire        HTTP: one write an answer, and the ways of answering badly
    bodies      an answer, and the vendor's words of refusal
    routes      which path is answered by which document
    request     one request as the documents see it, and what the plans of its key allow
    snapshots   documents of the live prices of any markets; market_snapshots of one
    aggregates  documents of the bars: previous day, grouped day, ranges with paging
    reference   documents about tickers and market hours; splits, about those
    sold        of which markets a request is: some plans have no limit
    market      the invented prices: a pure function of seed, ticker and time
    hours       the days of a market, and when it has bars
    catalogue   the tickers that exist; equities, those of stocks and indices
    actions     what becomes of stocks: splits, delistings, new names
    faults      the misbehaviours that can be asked for, and what they do to rows
    breakdowns  what they do to whole answers
    stream_faults  what goes wrong with a connection each second, and with its events
    stream      the WebSocket: its server, in a thread of its own, and what tests can make it do
    session     one connection of it: key, subscriptions, what is answered
    feed        which events of a pair fall due in a stretch of time
    clusters    what the vendor streams, as data: addresses, channels, fields
"""
