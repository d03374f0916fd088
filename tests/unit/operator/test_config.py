"""Settings come from the environment and are checked at the start."""

import pytest
from pydantic import ValidationError

from reranker_operator.config import Config


@pytest.fixture(autouse=True)
def _empty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Config.model_fields:
        monkeypatch.delenv(f"RERANKER_OPERATOR_{name.upper()}", raising=False)


def test_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "NAMESPACES": " shop, ,search ",
        "IMAGE_PULL_SECRETS": "a",
        "WORKERS": "8",
        "READ_NODES": "false",
        "HUB_ENDPOINT": "http://mirror.local",
        "BUILD_DEADLINE_SECONDS": "600",
        "UNKNOWN_SETTING": "x",
    }.items():
        monkeypatch.setenv(f"RERANKER_OPERATOR_{name}", value)
    config = Config()
    assert config.namespaces == ("shop", "search")
    assert (config.workers, config.read_nodes) == (8, False)
    defaults = config.defaults()
    assert defaults.image_pull_secrets == ("a",)
    assert (defaults.hub_endpoint, defaults.build_deadline_seconds) == ("http://mirror.local", 600)


def test_without_any_it_watches_everything() -> None:
    config = Config()
    assert config.namespaces == ()
    assert config.leader_election
    # Every setting that decisions see is handed on.
    shared = config.defaults().__dataclass_fields__.keys()
    assert {name: getattr(config, name) for name in shared} == {
        name: getattr(config.defaults(), name) for name in shared
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [("WORKERS", "0"), ("WORKERS", "many"), ("IMAGE_PULL_POLICY", "never"), ("LEASE_SECONDS", "1")],
)
def test_nonsense_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"RERANKER_OPERATOR_{name}", value)
    with pytest.raises(ValidationError, match=name.lower()):
        Config()
