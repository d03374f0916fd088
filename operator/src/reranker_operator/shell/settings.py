"""kopf's settings, with the reason for each that differs from its default."""

import logging
import re
from typing import Any

import kopf

from reranker_operator.api.meta import GROUP, OPTIONAL, OWNED
from reranker_operator.names import MANAGED_SELECTOR, MANAGER
from reranker_operator.shell.watching import Backoffs


class ExpectedAbsence(logging.Filter):
    """Drops kopf's warning about kinds that are not there, if all of them may be absent."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be logged."""
        text = record.getMessage()
        if not text.startswith("Unresolved resources"):
            return True
        plurals = set(re.findall(r"any_name='([^']+)'", text))
        return not plurals or not plurals <= {resource.plural for resource in OPTIONAL}


_EXPECTED_ABSENCE = ExpectedAbsence()


class _NoDiffs(kopf.DiffBaseStorage):
    """Only change handlers need differences, and kopf copies each object twice to have them."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        return None

    def store(self, **_: Any) -> None:
        return None


def configure(*, namespaced: bool) -> kopf.OperatorSettings:
    """Settings for a watcher that writes nothing; `namespaced` has no right to look further."""
    settings = kopf.OperatorSettings()
    # kopf strips a finalizer of this name from objects, so ours must have another one.
    settings.persistence.finalizer = f"{GROUP}/kopf"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=f"kopf.{GROUP}")
    settings.persistence.diffbase_storage = _NoDiffs()
    settings.posting.enabled = False
    settings.posting.loggers = False
    settings.posting.reporting_component = MANAGER
    # A silent connection is cut by the server, not discovered by nobody.
    settings.watching.server_timeout = 300
    settings.watching.connect_timeout = 10
    settings.watching.reconnect_backoff = 1
    # Parsed pods are large, and a task of kopf's holds the last event of each object as long as it
    # waits for another one.
    settings.watching.chunk_size = 100
    settings.queueing.idle_timeout = 0.2
    # The server filters; without it the cache would see every pod of the cluster.
    for made in OWNED:
        key = (made.group, made.version, made.plural)
        settings.watching.label_selectors[key] = MANAGED_SELECTOR
    # Looking for new kinds and namespaces is forbidden there, and kopf would retry for minutes
    # before its first watch.
    settings.scanning.disabled = namespaced
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.networking.error_backoffs = Backoffs()
    settings.process.ultimate_exiting_timeout = 9
    settings.queueing.exit_timeout = 1
    logging.getLogger("kopf._core.reactor.observation").addFilter(_EXPECTED_ABSENCE)
    return settings
