"""Log lines: JSON for machines, text for people. No request or secret ever gets here."""

import datetime
import json
import logging
import sys
from typing import Literal


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        entry = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if namespace := getattr(record, "namespace", None):
            entry["namespace"] = namespace
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def configure(level: str, style: Literal["text", "json"]) -> None:
    """One handler on standard error for everything."""
    handler = logging.StreamHandler(sys.stderr)
    if style == "json":
        handler.setFormatter(_JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # kopf tells of every event, the election of every renewal: ours to say what matters.
    for chatty in ("kopf", "aiohttp", "kubernetes"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLevelName(level)))
