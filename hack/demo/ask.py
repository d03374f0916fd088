"""Three questions with their passages, through the real API, printed ranked."""

import json
import urllib.request
from typing import Any

import yaml
from shell import ROOT, say

_QUESTIONS = ROOT / "hack/demo-model/questions.yaml"


def three_questions(url: str) -> None:
    """Ask and print. Raises OSError when the API does not answer."""
    with urllib.request.urlopen(f"{url}/v1/models", timeout=10) as answer:
        model = json.load(answer)["data"][0]["id"]
    for entry in yaml.safe_load(_QUESTIONS.read_text(encoding="utf-8")):
        say(f"\n   {entry['question']}")
        for place, (logit, name, text) in enumerate(_ranked(url, model, entry), start=1):
            say(f"     {place}. {logit:8.3f}  {name:<22} {_short(text)}")


def _ranked(url: str, model: str, entry: dict[str, Any]) -> list[tuple[float, str, str]]:
    passages = entry["passages"]
    body = {
        "model": model,
        "query": {"text": entry["question"]},
        "passages": [{"text": passage["text"]} for passage in passages],
        "truncate": "END",
    }
    request = urllib.request.Request(
        f"{url}/v1/ranking",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        rankings = json.load(answer)["rankings"]
    return [
        (row["logit"], passages[row["index"]]["name"], passages[row["index"]]["text"])
        for row in rankings
    ]


def _short(text: str, limit: int = 70) -> str:
    first = " ".join(text.split())
    return first if len(first) <= limit else f"{first[: limit - 1]}…"
