"""JSON logs on stderr, one line per event. Texts of requests never reach a log."""

import datetime
import json
import logging
import sys
from typing import Any

_FIELDS = "fields"


class JsonFormatter(logging.Formatter):
    """time, level, logger, event, then the event's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        entry: dict[str, Any] = {
            "time": time.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        entry.update(getattr(record, _FIELDS, {}))
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def configure_logs(level: str) -> None:
    """Send every logger of the process to stderr as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("httpx", "httpcore", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # A traceback for each message that a client makes unreadable.
    logging.getLogger("grpc").setLevel(logging.CRITICAL)
    # Its start and stop messages repeat ours, and its warnings are about clients: one line for
    # each thing that is not HTTP would let anybody fill the log.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)


def log_event(logger: logging.Logger, event: str, **fields: object) -> None:
    """One event with fields, at level info."""
    logger.info(event, extra={_FIELDS: fields})
