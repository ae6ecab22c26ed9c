"""Small pieces that several protocols share: JSON in, events as JSON, parameters, errors."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from rechka.engine import Flushed, SessionEvent
from rechka.errors import AudioError, AudioTooLong, BadRequest, RechkaError, ServiceError, UsageError
from rechka.types import Final, Partial, Refined, SpeechStart

DEFAULT_BOOST = 5.0
MAX_BOOST = 100.0
MAX_JSON = 16 << 20
"""Length of a text that is parsed; sockets and forms have limits of their own, usually smaller."""


def dumps(value: Any) -> str:
    """Compact JSON, letters as they are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def loads(text: str | bytes) -> dict[str, Any]:
    """A JSON object from a client.

    Raises:
        BadRequest: not JSON, no object, or something in it that cannot be sent back: numbers that are none or too
            large, halves of letters.
    """
    try:
        if len(text) > MAX_JSON:
            raise ValueError("too long")
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")  # json.loads would let halves of letters pass
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise BadRequest("a text message must be a JSON object", remedy="see docs/server.md") from None
    if not isinstance(value, dict):
        raise BadRequest(f"a text message must be a JSON object, got {type(value).__name__}")
    return value


def _no_constant(name: str) -> float:
    raise ValueError(name)


def _finite(text: str) -> float:
    found = float(text)
    if math.isinf(found):
        raise ValueError(text)
    return found


def event_dict(event: SessionEvent) -> dict[str, Any]:
    """An event in the native protocol: its kind under ``type``, then its fields; seconds with three decimals."""
    if isinstance(event, (Final, Refined)):
        return {"type": "final" if isinstance(event, Final) else "refined", **event.segment.to_dict()}
    if isinstance(event, Partial):
        return {
            "type": "partial",
            "stable": event.stable,
            "unstable": event.unstable,
            "start": round(event.start, 3),
            "channel": event.channel,
        }
    if isinstance(event, Flushed):
        return {"type": "flushed", "time": round(event.time, 3)}
    kind = "speech_start" if isinstance(event, SpeechStart) else "speech_end"
    return {"type": kind, "time": round(event.time, 3), "channel": event.channel}


def hotwords(given: Any) -> dict[str, float]:
    """Hotwords as clients give them: an object of boosts, or a list of ``WORD``, ``WORD:BOOST``.

    Raises:
        UsageError: anything else.
    """
    if isinstance(given, Mapping):
        items: Iterable[tuple[Any, Any]] = given.items()
    elif isinstance(given, (list, tuple)):
        items = [_with_boost(entry) for entry in given]
    else:
        raise UsageError("hotwords must be a list of words, or an object of words and boosts")
    found: dict[str, float] = {}
    for word, boost in items:
        if isinstance(boost, bool) or not isinstance(boost, (int, float)):
            raise UsageError(f"the boost of a hotword is a number, got {str(boost)[:40]!r}")
        if not abs(boost) <= MAX_BOOST:  # nan is not either, and an integer may be too large for a float
            raise UsageError(f"the boost of a hotword is at most {MAX_BOOST:g}, got {str(boost)[:40]}")
        if word.strip():
            found[word.strip()] = float(boost)
    return found


def _with_boost(entry: Any) -> tuple[str, float]:
    if not isinstance(entry, str):
        raise UsageError(f"a hotword must be a text, got {type(entry).__name__}")
    word, colon, number = entry.rpartition(":")
    try:
        return (word, float(number)) if colon else (entry, DEFAULT_BOOST)
    except ValueError:
        return entry, DEFAULT_BOOST


def number(value: Any, name: str) -> float:
    """A finite number from a message or a query.

    Raises:
        BadRequest: anything else.
    """
    try:
        found = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise BadRequest(f"{name} must be a number, got {str(value)[:40]!r}")
    return found


def integer(value: Any, name: str) -> int:
    """A whole number from a message or a query.

    Raises:
        BadRequest: anything else.
    """
    found = number(value, name)
    if found != int(found):
        raise BadRequest(f"{name} must be a whole number, got {str(value)[:40]!r}")
    return int(found)


def flag(value: Any, name: str) -> bool:
    """True or false from a message, a form or a query.

    Raises:
        BadRequest: anything else.
    """
    if isinstance(value, (bool, int)) and value in (0, 1):
        return bool(value)
    known = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    text = str(value).strip().lower()
    if text not in known:
        raise BadRequest(f"{name} must be true or false, got {str(value)[:40]!r}")
    return known[text]


def status_of(error: RechkaError) -> int:
    """HTTP status of an error."""
    if isinstance(error, ServiceError):
        return error.status
    if isinstance(error, AudioTooLong):
        return 413
    return 400 if isinstance(error, (AudioError, UsageError)) else 500


def close_code_of(error: RechkaError) -> int:
    """WebSocket close code of an error."""
    if isinstance(error, ServiceError):
        return error.close_code
    if isinstance(error, AudioTooLong):
        return 1009
    return 1007 if isinstance(error, (AudioError, UsageError)) else 1011


def retry_headers(error: RechkaError) -> dict[str, str]:
    """``Retry-After`` where it helps, whole seconds."""
    seconds = getattr(error, "retry_after_s", None)
    return {} if seconds is None else {"Retry-After": str(max(1, math.ceil(seconds)))}
