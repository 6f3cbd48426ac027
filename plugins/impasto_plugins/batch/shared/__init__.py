"""One batch on several hosts, which share its ledger through a bucket alone.

Below ``.impasto/`` in the prefix of the batch are

- ``intents/SHA-256(id)-INDEX[.ATTEMPT]``: the host and the rows of one request's images. It is created before the
  request is sent.
- ``log/HOST/LEVEL-NUMBER``: rows of a host's ledger, a segment. Each is written once, in order.
- ``hosts/HOST``: the host's lease, with its share and the number of its segments. It is written again and again.
- ``shares/K-of-N/NUMBER``: the host that holds a share. The next holder creates the next number.

and ``.impasto-batch`` names the manifest. The time decides nothing but which hosts have died.

**Not twice.** A request is sent only by the host that created its intent: S3 creates an object once, whoever asks, and
nobody deletes it. Attempt 1 begins only after a row of the log proves that attempt 0 was not charged (or with
``--retry-ambiguous``), and is one object again. So no clock, no pause and no late message can pay twice. The name has
the id and not the content: so the intent itself reveals an id that has other content on another host.

**Merging.** Each host's folder has a ledger with its own rows and those of all other hosts, which have the key
``from``. Rows of one image are ordered by their evidence (``merging``), and the highest stands. The order in which
they arrive changes nothing, so all hosts have the same result in the end.

**Dead hosts.** A host renews its lease; by the clock of S3 alone, others find that it has ended. Then they read its log
to the end, list the intents, and settle each image that it left open: they poll its job, or find the uploaded image;
otherwise it is ambiguous. If the host was only stopped and comes back, it renews its lease before it sends anything,
gives up requests that it has not sent, and its late images take the place of "ambiguous".

**Costs.** An image is two objects, its intent and itself, and part of a segment, which is written every half second at
most. Sixteen segments are also written as one, and sixteen of those as one: a new reader reads few objects.
"""
