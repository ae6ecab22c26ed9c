"""Logs of a server: to stderr, as lines for people or as JSON. Texts, audio, keys and queries are never in them."""

from __future__ import annotations

import json
import logging
import sys
import time
from contextvars import ContextVar

REQUEST: ContextVar[str] = ContextVar("rechka_request", default="")
"""Number of the request that is being served."""


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, logger, message, request, and the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request := REQUEST.get():
            line["request"] = request
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """A line for people; line breaks in a message cannot fake another one, nor its codes give the terminal orders."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        stamp = time.strftime("%H:%M:%S", time.localtime(record.created))
        request = REQUEST.get()
        message = record.getMessage()
        if not message.isprintable():
            message = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in message)
        line = f"{stamp} {record.levelname.lower():7} {f'[{request}] ' if request else ''}{message}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def set_up(level: str, form: str) -> None:
    """Send the logs of rechka and of the server library to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    for name, lowest in (("rechka", level.upper()), ("uvicorn", "WARNING"), ("websockets", "WARNING")):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(lowest)
        logger.propagate = False
