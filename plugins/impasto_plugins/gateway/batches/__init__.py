"""OpenAI's ``files`` and ``batches``, run by the machinery of ``impasto batch run``.

files_api     ``/v1/files``: uploads and downloads
batches_api   ``/v1/batches``
context       a request to these endpoints
scheduler     decides which worker runs which batch, and resumes it after a stop
job           one batch: validate, generate, write the results
validation    checks of a whole input file
input_lines   parses a line into image tasks
execution     generates the images of lines
progress      counts for the batch object
finalization  the end of a batch: its files and its state
output        result files, whose images are inserted while they are downloaded
store         files and batches in the state, shared by all workers
"""
