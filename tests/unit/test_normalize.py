"""The scoring normaliser."""

from __future__ import annotations

import pytest

from rechka.text.normalize import scoring


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ещё раз, пожалуйста!", "еще раз пожалуйста"),
        ("кое-что  из-за\tугла\n", "кое что из за угла"),
        ("«Алло?» — сказал он…", "алло сказал он"),
        ("замо\u0301к", "замок"),  # stress mark
        ("пере\u00adнос", "перенос"),  # soft hyphen
        ("и\u0306од, е\u0308лка", "йод елка"),  # decomposed й and ё
        ("в 5 часов", "в 5 часов"),  # a written digit is an error, not nothing
        ("SMS-код", "sms код"),
        ("Ёлка ЁЖ", "елка еж"),
        ("...", ""),
        ("", ""),
    ],
)
def test_scoring(text: str, expected: str) -> None:
    assert scoring(text) == expected
