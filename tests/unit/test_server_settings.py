"""Settings: one table gives flags, file and variables; precedence; what is not safe is refused."""

from pathlib import Path

import pytest

from rechka.errors import UsageError
from rechka.hub import toml
from rechka.server.original import settings_of
from rechka.server.settings import FIELDS, Settings, resolve


def test_flag_beats_variable_beats_file_beats_default(tmp_path):
    file = tmp_path / "s.toml"
    file.write_text('port = 1\nmax_streams = 1\nidle_s = 5\nmodel = ["a", "b"]\n')
    environ = {"RECHKA_MAX_STREAMS": "2", "RECHKA_IDLE_S": "7", "RECHKA_CORS_ORIGINS": "https://a, https://b"}
    found = resolve({"idle_s": "9", "port": None}, file=file, environ=environ)
    s = found.settings
    assert (s.port, s.max_streams, s.idle_s, s.grace_s) == (1, 2, 9.0, 30.0)
    assert s.model == ("a", "b")
    assert s.cors_origins == ("https://a", "https://b")
    assert found.sources["idle_s"] == "--idle-s"
    assert found.sources["max_streams"] == "RECHKA_MAX_STREAMS"


def test_what_show_prints_is_a_settings_file(tmp_path):
    environ = {"RECHKA_MODEL": "one,two", "RECHKA_TOKEN_SECRET": "hush", "RECHKA_REFINE": 'a "b" \\'}
    first = resolve(environ=environ)
    text = first.show()
    assert "hush" not in text
    file = tmp_path / "s.toml"
    file.write_text(text, encoding="utf-8")
    again = resolve(file=file, environ={"RECHKA_TOKEN_SECRET": "hush"})
    assert again.settings == first.settings
    assert set(toml.loads(text)) | {"tls_cert", "tls_key", "keys_file", "token_secret", "data_dir"} == set(FIELDS)


@pytest.mark.parametrize(
    ("environ", "file", "said"),
    [
        ({"RECHKA_PORT": "http"}, None, "RECHKA_PORT must be a whole number"),
        ({"RECHKA_PORT": "70000"}, None, "port must be"),
        ({"RECHKA_ALLOW_ANONYMOUS": "maybe"}, None, "true or false"),
        ({"RECHKA_INBOX_S": "0"}, None, "inbox_s must be above 0"),
        ({"RECHKA_ALIAS": "x"}, None, "alias must be NAME=MODEL"),
        ({"RECHKA_TLS_CERT": "a.pem"}, None, "tls_cert"),
        ({"RECHKA_HOST": "0.0.0.0"}, None, "no keys_file"),
        ({"RECHKA_HOST": "::"}, None, "no keys_file"),
        ({"RECHKA_HOST": "example.org"}, None, "no keys_file"),
        ({}, "prot = 1", "unknown setting 'prot'"),
        ({}, 'port = "1"', "whole number"),
        ({}, "port = true", "whole number"),
        ({}, "port = ", "is not TOML"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, environ, file, said):
    path = None
    if file is not None:
        path = tmp_path / "s.toml"
        path.write_text(file)
    with pytest.raises(UsageError, match=said):
        resolve(file=path, environ=environ)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_loopback_needs_no_keys(host):
    settings = resolve({"host": host}, environ={}).settings
    assert (settings.host, settings.keys_file, settings.allow_anonymous) == (host, None, False)


def test_beyond_loopback_with_keys_or_on_purpose():
    keyed = resolve({"host": "0.0.0.0", "keys_file": "k.toml"}, environ={}).settings
    assert (keyed.keys_file, keyed.allow_anonymous) == (Path("k.toml"), False)
    assert resolve({"host": "0.0.0.0", "allow_anonymous": "yes"}, environ={}).settings.allow_anonymous is True


def test_every_setting_has_words_and_a_group():
    for item in FIELDS.values():
        assert item.metadata["help"]
        assert item.metadata["group"]
        assert item.name.endswith("_s") == (item.metadata["unit"] == "s")
    assert isinstance(Settings().keys_file, Path | None)


def test_variables_of_the_original_server():
    environ = {
        "HOST": "0.0.0.0", "PORT": "49155", "MODEL_NAME": "gigaam-v3-ctc", "NUM_THREADS": "4", "PROVIDER": "CPU",
        "LOGGING_LEVEL": "DEBUG", "IS_PROD": "1", "VAD_SENSE": "3",
    }  # fmt: skip
    found, ignored = settings_of(environ)
    assert found == {
        "host": "0.0.0.0", "port": "49155", "model": "gigaam-v3-ctc", "workers": "4", "device": "cpu",
        "log_level": "debug",
    }  # fmt: skip
    assert sorted(ignored) == ["IS_PROD", "VAD_SENSE"]
    assert settings_of({})[0] == {"port": 49153}
    assert resolve({**found, "allow_anonymous": True}, environ={}).settings.port == 49155
