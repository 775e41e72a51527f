"""HTTP API and web page for one classifier (`fieldmark serve`).

    server.py       socket, uvicorn, graceful shutdown
    app.py          routes, and errors as responses
    service.py      queue, decoding and network for each photo of a request
    multipart.py    the photos of a request body, with limits on bytes, photos and time
    decoders.py     pool of decoding processes, each of which runs decoder.py
    batcher.py      threads that collect photos into batches for the network
    model.py        the classifier as the routes use it
    answers.py      pydantic models of all JSON responses
    http_errors.py  errors with status, code and message
    middleware.py   headers, request ids, API keys and log lines for every request
    metrics.py      Prometheus metrics
    templates/      the page of the API documentation
    static/         the web page

Photos are held in memory while they are processed and are never stored.
"""
