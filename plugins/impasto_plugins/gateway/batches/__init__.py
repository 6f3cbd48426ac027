"""OpenAI's ``files`` and ``batches``, over the runner of ``impasto batch run``.

records    the rows of files and batches, which all workers share
uploads    ``/v1/files``: what comes in, and what goes out
endpoints  ``/v1/batches``
lines      a line of an input file, as the requests of its pictures
results    what a batch leaves: files whose pictures are put in as they go out
runs       which worker runs which batch, and how it goes on after any stop
"""
