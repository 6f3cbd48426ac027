"""Batches of several replicas that share records and a bucket.

lease       the right to run a batch, in its row
shared_run  the images of a batch in a bucket
"""
