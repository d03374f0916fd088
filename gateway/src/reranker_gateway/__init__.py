"""The serving front of a reranker: one process beside Triton in every serving pod.

A request passes through these modules in order: `api` reads and validates it, `tokenise` turns
texts into token ids, `admission` accepts or refuses it by tokens, `scheduler` mixes its pairs with
those of other requests (`pairs`, `turns`) into batches of similar length (`batching`), `triton`
runs the batches, and the logits come back in the caller's order. `readiness` watches Triton,
`drain` ends the process without a failed request. Nothing here knows Kubernetes.
"""

from typing import Final

VERSION: Final = "0.1.0"
