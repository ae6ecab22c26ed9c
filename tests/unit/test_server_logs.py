"""Lines of the server's log."""

import logging

import pytest

from rechka.server.logs import TextFormatter


@pytest.mark.parametrize("path", ["/\x1b[2J", "/a\nb", "/a\r\x0bb", "/\x9b2J", "/\u2028", "/\u202egnp", "/\x00"])
def test_codes_of_clients_do_not_reach_the_terminal(path):
    record = logging.LogRecord("rechka.access", logging.INFO, "", 0, "%s", (path,), None)
    line = TextFormatter().format(record)
    assert line.isprintable()
    assert line.endswith(repr(path)[1:-1])
