"""Storage of bytes that must survive: in the data directory, or in a bucket that all replicas share.

contents  the contents of calls, files and batches by name; in a folder
bucket    the same in a bucket
places    the choice between them
local     images behind URLs, in a folder
s3        images behind presigned URLs
salvage   paid answers that can't be used
failures  refusals of calls that can't be recorded
late_writes  what the state did not take, until it does
"""
