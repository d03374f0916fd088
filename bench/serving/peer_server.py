"""A library as a user would put it behind HTTP: FastAPI, one model, `POST /rerank`.

    python bench/serving/peer_server.py KIND MODEL PORT [--batch 32] [--one]
    python bench/serving/peer_server.py export MODEL --out FOLDER

KIND is torch, onnx or openvino (sentence-transformers' CrossEncoder with that backend) or
flashrank. All but torch need the files that `export` adds to a copy of the model. With `--one`
requests are scored one at a time: each already uses all cores.
Runs where requirements/bench-peers.txt is installed.
"""

import argparse
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

Score = Callable[[str, list[str]], list[float]]
#: FlashRank knows its models by name and finds a file of this name in the folder.
_FLASHRANK = ("ms-marco-TinyBERT-L-2-v2", "flashrank-TinyBERT-L-2-v2.onnx")


class Asked(BaseModel):
    query: str
    documents: list[str]


def cross_encoder(backend: str, model: Path, batch: int, *, exact: bool) -> Score:
    """sentence-transformers sorts by length itself.

    Unless it is told to be `exact`, OpenVINO computes in BF16 where the CPU can.
    """
    from sentence_transformers import CrossEncoder  # noqa: PLC0415

    settings = {"ov_config": {"INFERENCE_PRECISION_HINT": "f32"}} if exact else {}
    encoder = CrossEncoder(
        str(model), backend=backend, device="cpu", max_length=512, model_kwargs=settings
    )

    def score(query: str, documents: list[str]) -> list[float]:
        pairs = [(query, document) for document in documents]
        return [float(value) for value in encoder.predict(pairs, batch_size=batch)]

    return score


def export(model: Path, out: Path) -> None:
    """A copy of the model with ONNX and OpenVINO files, as sentence-transformers exports them."""
    from sentence_transformers import CrossEncoder  # noqa: PLC0415

    shutil.copytree(model, out)
    for backend in ("onnx", "openvino"):
        CrossEncoder(str(model), backend=backend, device="cpu").save_pretrained(str(out))


def flashrank(model: Path) -> Score:
    """With our model's ONNX in place of theirs."""
    from flashrank import Ranker, RerankRequest  # noqa: PLC0415

    name, file = _FLASHRANK
    cache = Path(tempfile.mkdtemp())
    shutil.copytree(model, cache / name)
    shutil.copy(model / "onnx/model.onnx", cache / name / file)
    ranker = Ranker(model_name=name, cache_dir=str(cache), max_length=512)

    def score(query: str, documents: list[str]) -> list[float]:
        passages = [{"id": at, "text": text} for at, text in enumerate(documents)]
        found = ranker.rerank(RerankRequest(query=query, passages=passages))
        return [float(entry["score"]) for entry in sorted(found, key=lambda entry: entry["id"])]

    return score


def one_at_a_time(score: Score) -> Score:
    """The others wait."""
    turn = threading.Lock()

    def alone(query: str, documents: list[str]) -> list[float]:
        with turn:
            return score(query, documents)

    return alone


def application(score: Score) -> FastAPI:
    app = FastAPI()

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    # A plain function, so that FastAPI runs it in a thread.
    @app.post("/rerank")
    def rerank(asked: Asked) -> dict[str, list[dict[str, float]]]:
        scores = score(asked.query, asked.documents)
        order = sorted(range(len(scores)), key=lambda at: -scores[at])
        return {"results": [{"index": at, "relevance_score": scores[at]} for at in order]}

    return app


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("kind", choices=["torch", "onnx", "openvino", "flashrank", "export"])
    parser.add_argument("model", type=Path)
    parser.add_argument("port", type=int, nargs="?", default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--one", action="store_true")
    parser.add_argument("--exact", action="store_true", help="OpenVINO in FP32")
    arguments = parser.parse_args()
    if arguments.kind == "export":
        export(arguments.model, arguments.out)
        return
    if arguments.kind == "flashrank":
        score = flashrank(arguments.model)
    else:
        score = cross_encoder(
            arguments.kind, arguments.model, arguments.batch, exact=arguments.exact
        )
    if arguments.one:
        score = one_at_a_time(score)
    uvicorn.run(application(score), host="127.0.0.1", port=arguments.port, log_level="warning")


if __name__ == "__main__":
    main()
