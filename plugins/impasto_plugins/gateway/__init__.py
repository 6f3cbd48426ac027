"""An OpenAI-compatible images server in front of the providers: ``impasto serve --config config.yaml``.

A request's way, and the module of each step:

    process      one worker or several, signals, exit code      command    ``impasto serve``
    server       Gateway: a gateway in the running loop: start, reload, drain
    connections  who may have one, how long each step may take, what is no HTTP      chunks  framing
    app          the host, who asks, the endpoint; every error as an answer      routes     the paths
      auth         bearer keys by their SHA-256                  errors     Failure: OpenAI's shape, and retry advice
      setup        what a configuration comes to, replaced whole by a reload
        config       its records and the rules of a safe bind    config_yaml  the file, mistakes by their lines
        deployments  models, their deployments, which one's turn it is
      images       generations, edits, variations
        incoming     JSON or form to arguments                   multipart, spool, flow  forms, uploads, their bytes
        repeats      requests that come again: joined, replayed  identity     what makes two the same
          flights    which calls run in which worker             kept         calls that are written down
          outcomes   what came of them, with the pictures        data         the directory of it all
        jobs         ``Prefer: respond-async``, ``images/jobs``  accepted     what a provider took on, fetched later
        waiting      no longer than the caller does
        budgets      what a named key may spend
        calls        checked against the model, run, run elsewhere where nothing was charged
        large        answers too large for memory, on disk and on their way to the caller at once
        shown        what a caller is shown of an outcome
        outgoing     writes JSON and event streams               segments     what they are made of
        store        pictures kept for URLs, bucket those in S3   served     ``images/files/{name}``
      batches      ``files`` and ``batches``: a package of its own
      listing      ``models`` with their parameters
    seen         what is known of one request                    observer     who tells it, to each of these:
      metrics, tally  ``/metrics``, of all workers together      access_log   a line for each request
      traces, attributes  OpenTelemetry's spans and their names  watchdog     what holds the loop up

Nothing here fetches a URL. The translation of OpenAI's words is ``impasto_plugins.openai_compat``'s.
"""
