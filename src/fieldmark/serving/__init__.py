"""Serve: the HTTP API and the web page over one classifier.

    command.py    `fieldmark serve`: options -> config -> one call
    server.py     the socket, uvicorn, and a shutdown that finishes what was begun
    app.py        the routes: a line or two each
    service.py    what the routes call: places in the queue, decoding, the network, metrics
    body.py       a request's bytes to photos, counted while they arrive
    decoders.py   processes that decode, replaced when one crashes or hangs; decoder.py is what they run
    batches.py    the threads that feed the network, a batch at a time each
    model.py      what is asked of a classifier, and what it has to offer
    answers.py    every JSON object that leaves the server
    refusals.py   every refusal, with its status and its sentence
    guard.py      headers, request ids, the key, log lines: around every request
    metrics.py    what /metrics counts
    static/       the page

A photo is held in memory while it is being answered, and nowhere else.
"""
