"""Seconds as text, rounded to whole milliseconds once."""

from __future__ import annotations


def clock(seconds: float, *, point: str = ".", hours: bool = True) -> str:
    """``HH:MM:SS.mmm``; without ``hours`` ``MM:SS.mmm`` as long as the time is below an hour. Never negative."""
    whole, ms = divmod(max(0, round(seconds * 1000)), 1000)
    minutes, s = divmod(whole, 60)
    h, m = divmod(minutes, 60)
    short = f"{m:02}:{s:02}{point}{ms:03}"
    return f"{h:02}:{short}" if hours or h else short
