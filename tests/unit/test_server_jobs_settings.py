"""Settings of jobs, history and fetching: what makes no sense is refused, secrets are not shown."""

from __future__ import annotations

import pytest

from rechka.errors import UsageError
from rechka.server.settings import Settings, resolve


def test_nothing_is_kept_fetched_or_called_by_default():
    settings = Settings()
    assert settings.data_dir is None
    assert (settings.history, settings.history_live, settings.fetch, settings.webhooks) == ("off", False, False, False)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"history": "maybe", "data_dir": "x"}, "off or text-free or on"),
        ({"history": "on"}, "data_dir"),
        ({"database": "postgresql://x/y"}, "data_dir"),
        ({"database": "mysql://x/y", "data_dir": "x"}, "postgresql://"),
        ({"webhooks": "true", "data_dir": "x"}, "webhook_secret"),
        ({"webhooks": "true", "webhook_secret": "s"}, "data_dir"),
        ({"private_networks": "10.0.0.0/8,10.1.2.3/8"}, "private_networks"),
        ({"job_workers": "0"}, "job_workers"),
        ({"history_days": "0"}, "history_days"),
    ],
)
def test_refused(flags, said):
    with pytest.raises(UsageError, match=said):
        resolve(flags, environ={})


def test_secrets_are_not_shown(tmp_path):
    given = {
        "data_dir": str(tmp_path), "database": "postgresql://me:hush@db/x", "webhooks": "true",
        "webhook_secret": "hush", "private_networks": "10.1.0.0/16,fd00::/8",
    }  # fmt: skip
    found = resolve(given, environ={})
    assert found.settings.private_networks == ("10.1.0.0/16", "fd00::/8")
    assert "hush" not in found.show()
    assert f'data_dir = "{tmp_path}"' in found.show()
