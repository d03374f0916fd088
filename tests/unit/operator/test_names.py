"""Whatever models are called, what is derived from it is a name that Kubernetes takes."""

import re

from hypothesis import given
from hypothesis import strategies as st

from reranker_operator import names

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)
SERVICES = st.from_regex(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", fullmatch=True)
TARGETS = st.sampled_from(["onnx-cpu-fp32", "onnx-cuda-fp32", "a" * 60])


@given(st.text(max_size=200), TARGETS, DIGESTS, st.integers(1, 9999))
def test_engines_and_their_jobs(model: str, target: str, digest: str, attempt: int) -> None:
    name = names.engine(model, target, digest)
    assert len(name) <= 50
    assert name.endswith(digest[:10])
    elsewhere = names.engine(model, target, digest, "mine")
    assert len(elsewhere) == len(name)
    assert elsewhere != name
    for step in ("prepare", "compile", "remove"):
        assert LABEL.fullmatch(names.stage_job(name, step, attempt))


@given(SERVICES, st.text(max_size=40), st.integers(1, 10**6))
def test_what_belongs_to_a_service(service: str, key: str, attempt: int) -> None:
    assert LABEL.fullmatch(names.resolve_job(service, key, attempt))
    assert LABEL.fullmatch(names.deployment(service, names.short_hash(key)))
    for value in names.labels("serving", service).values():
        assert LABEL.fullmatch(value)


@given(st.none() | st.text(max_size=253), st.sampled_from(["ReadWriteOnce", "ReadWriteMany"]))
def test_claims_of_stores(storage_class: str | None, mode: str) -> None:
    assert LABEL.fullmatch(names.store_claim(storage_class, mode))


def test_each_attempt_and_each_kind_of_storage_has_its_own_name() -> None:
    assert len({names.resolve_job("rank", key, n) for key in "ab" for n in (1, 2, 11)}) == 6
    kinds = [(None, "ReadWriteOnce"), (None, "ReadWriteMany"), ("fast", "ReadWriteOnce")]
    assert len({names.store_claim(*kind) for kind in kinds}) == 3
