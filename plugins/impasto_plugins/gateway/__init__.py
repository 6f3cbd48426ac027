"""An OpenAI-compatible image server in front of the providers: ``impasto serve --config config.yaml``.

The rooms; each may import those below it (``tests/architecture/test_layers.py``):

    command       ``impasto serve``; ``state_command``: ``impasto state``
    serve         one worker process or several, signals, exit code
    gateway       a gateway in the running loop: start, reload, drain
    app, routes   the path of every request: host, key, endpoint, errors
    batches       OpenAI's ``files`` and ``batches``
    api           generations, edits, variations, audio, 3D, jobs, models, image files
    idempotency   repeated requests: joined while the first runs, replayed afterwards
    calls         arguments, deployments, budgets, queue time-outs, the call itself
    http          connections, bodies, forms, uploads, the memory budget
    storage       images on disk or in S3, answers that could not be used, refusals without records
    auth          bearer keys by their SHA-256
    telemetry     the record of a request, metrics, traces, the access log, the loop monitor
    config        the records of a configuration and the file they are read from
    errors        errors in OpenAI's shape, with retry advice

The records of calls, budgets, files and batches are in ``impasto_plugins.state``. Nothing here fetches a URL. OpenAI's
parameters are translated by ``impasto_plugins.openai_compat``.
"""
