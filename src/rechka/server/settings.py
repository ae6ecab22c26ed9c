"""The settings of ``rechka serve``: one table, from which come flags, a TOML file, RECHKA_* variables and the docs.

A flag beats a variable, a variable beats the file, the file beats the default.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_type_hints

from rechka.errors import UsageError
from rechka.hub import toml

PREFIX = "RECHKA_"
MAX_FILE_BYTES = 1 << 20
HISTORY = ("off", "text-free", "on")
SECRETS = ("token_secret", "webhook_secret", "database", "twilio_auth_token", "webrtc_ice_password")
"""Never shown; an address of a database may hold a password."""
ICE = ("stun:", "stuns:", "turn:", "turns:")
LOOPBACK_NAMES = ("localhost", "localhost.localdomain", "ip6-localhost")


def _setting(default: Any, group: str, help_: str, *, unit: str = "") -> Any:
    return field(default=default, metadata={"group": group, "help": help_, "unit": unit})


@dataclass(frozen=True, slots=True)
class Settings:
    """What a server may do. Every attribute is a setting; its name with ``-`` is the flag, RECHKA_NAME the variable."""

    host: str = _setting("127.0.0.1", "network", "Address to listen on. Anything but loopback needs keys.")
    port: int = _setting(8080, "network", "Port; 0 lets the system choose.")
    more_ports: tuple[int, ...] = _setting(
        (), "network", "Further ports for the same, such as 2700 for clients of vosk-server."
    )
    wyoming_port: int = _setting(
        0, "network", "TCP port for Home Assistant's Wyoming protocol, 10300 is usual; 0: off."
    )
    tls_cert: Path | None = _setting(  # noqa: RUF009
        None, "network", "Certificate chain, PEM; then the HTTP ports speak TLS, Wyoming and AudioSocket do not."
    )
    tls_key: Path | None = _setting(None, "network", "Private key of the certificate, PEM.")  # noqa: RUF009
    allowed_hosts: tuple[str, ...] = _setting(
        (), "network", "Host names that requests may name. By default on loopback: localhost; elsewhere: any."
    )
    cors_origins: tuple[str, ...] = _setting(
        (), "network", "Web pages elsewhere that may use the server, such as https://example.org; * for all."
    )
    trusted_proxies: tuple[str, ...] = _setting(
        (), "network", "Addresses of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed."
    )

    model: tuple[str, ...] = _setting(
        (), "model", "Models to serve, by name, folder or card; the first is the default. None: as rechka transcribe."
    )
    alias: tuple[str, ...] = _setting(
        (), "model", "NAME=MODEL: another name for a model. Names of OpenAI's models mean the default one anyway."
    )
    refine: str = _setting("", "model", "A second model that reads every phrase of the default one again.")
    device: str = _setting("cpu", "model", "Where models run: cpu, cuda, or triton://HOST:PORT.")
    workers: int = _setting(0, "model", "Threads that step a model; 0: the cores this process may use, one on a GPU.")
    max_batch: int = _setting(16, "model", "Streams of one step at most.")
    max_wait_ms: float = _setting(
        5.0, "model", "How long a ready stream waits for others to share its step.", unit="ms"
    )

    keys_file: Path | None = _setting(None, "access", "TOML file of API keys; with it every request needs a key.")  # noqa: RUF009
    allow_anonymous: bool = _setting(False, "access", "Listen beyond loopback although there are no keys.")
    token_secret: str = _setting(
        "", "access", "Signs short-lived tokens; the same for servers that share clients. Default: a random one."
    )
    requests_per_minute: int = _setting(600, "access", "Of one key or address; 0: no limit.")

    max_streams: int = _setting(200, "limits", "Sessions open at the same time, per model.")
    max_connections: int = _setting(2000, "limits", "Connections open at the same time.")
    max_files: int = _setting(8, "limits", "Recordings recognised at the same time; others wait.")
    file_wait_s: float = _setting(30.0, "limits", "How long a recording waits for its turn.", unit="s")
    max_queue_age_s: float = _setting(
        1.0, "limits", "No new session while those that are open wait longer than this for a step.", unit="s"
    )
    inbox_s: float = _setting(10.0, "limits", "Audio of a session that waits at most; then reading stops.", unit="s")
    max_session_s: float = _setting(14400.0, "limits", "Audio of one session.", unit="s")
    max_file_s: float = _setting(14400.0, "limits", "Length of one recording.", unit="s")
    max_message_kb: int = _setting(1024, "limits", "Size of one WebSocket message.", unit="KiB")
    max_upload_mb: int = _setting(512, "limits", "Size of one upload.", unit="MiB")
    idle_s: float = _setting(60.0, "limits", "A client that sends nothing for so long is disconnected.", unit="s")
    send_s: float = _setting(30.0, "limits", "A client that takes nothing for so long is disconnected.", unit="s")
    header_s: float = _setting(15.0, "limits", "Time for a request's headers to arrive.", unit="s")
    grace_s: float = _setting(30.0, "limits", "After SIGTERM: time for open streams to end by themselves.", unit="s")

    data_dir: Path | None = _setting(  # noqa: RUF009
        None, "jobs", "Folder for jobs, their audio and the history. None: nothing is kept, there are no jobs."
    )
    database: str = _setting(
        "", "jobs", "postgresql://... for servers that share their jobs. Default: SQLite, rechka.db in data_dir."
    )
    job_workers: int = _setting(1, "jobs", "Jobs recognised at the same time; live streams come first anyway.")
    max_jobs: int = _setting(1000, "jobs", "Jobs that wait or run, of all keys.")
    max_jobs_per_key: int = _setting(200, "jobs", "Jobs that wait or run, of one key.")
    max_spool_mb: int = _setting(10240, "jobs", "Audio of jobs on the disk, in all.", unit="MiB")
    job_attempts: int = _setting(3, "jobs", "How often a job is begun before it counts as failed.")
    job_lease_s: float = _setting(
        60.0, "jobs", "A job whose server says nothing for so long is given to another.", unit="s"
    )
    job_keep_h: float = _setting(72.0, "jobs", "How long finished jobs and their results are kept.", unit="h")
    webhooks: bool = _setting(False, "jobs", "Jobs may name a callback_url that is told when they end.")
    webhook_secret: str = _setting("", "jobs", "Signs what is sent to callback_url; needed for webhooks.")
    webhook_hosts: tuple[str, ...] = _setting(
        (), "jobs", "Hosts that callback_url may name, .example.org for all below. None: any public one."
    )

    history: str = _setting(
        "off", "history", "What is remembered of finished jobs: off, text-free (when, how long, which model) or on."
    )
    history_live: bool = _setting(False, "history", "Remember live sessions too.")
    history_days: float = _setting(30.0, "history", "How long the history goes back.", unit="days")

    fetch: bool = _setting(False, "fetch", "Clients may name an address instead of uploading a recording.")
    fetch_hosts: tuple[str, ...] = _setting(
        (), "fetch", "Hosts that may be fetched from, .example.org for all below. None: any public one."
    )
    fetch_s: float = _setting(120.0, "fetch", "Time for one recording to be fetched, redirects included.", unit="s")
    private_networks: tuple[str, ...] = _setting(
        (), "fetch", "Networks such as 10.1.0.0/16 that fetch and webhooks may reach although they are not public."
    )

    audiosocket_port: int = _setting(0, "telephone", "TCP port for Asterisk's AudioSocket, 9092 is usual; 0: off.")
    audiosocket_ids: tuple[str, ...] = _setting(
        (), "telephone", "UUIDs of calls that are let in without being announced; * and ? stand for any letters."
    )
    audiosocket_peers: tuple[str, ...] = _setting(
        (), "telephone", "Addresses and networks of the Asterisk servers; others are turned away."
    )
    twilio_auth_token: str = _setting(
        "", "telephone", "Auth token of the Twilio account; with it /v1/twilio takes signed connections only."
    )
    public_url: str = _setting(
        "", "telephone", "How clients see this server, such as wss://asr.example.org; Twilio signs addresses."
    )
    call_webhook: str = _setting(
        "", "telephone", "Address that gets the transcript of every call at its end; signed if webhook_secret is set."
    )
    call_keep_s: float = _setting(
        600.0, "telephone", "How long the events of a call can be read after its end.", unit="s"
    )
    max_calls: int = _setting(1000, "telephone", "Calls that are announced, open, or kept for reading.")

    webrtc: bool = _setting(False, "webrtc", "Take audio over WebRTC, /v1/webrtc; needs the webrtc extra.")
    webrtc_ice: tuple[str, ...] = _setting(
        (), "webrtc", "ICE servers, such as stun:stun.example.org:3478 or turn:turn.example.org:3478."
    )
    webrtc_ice_user: str = _setting("", "webrtc", "User name for the turn servers.")
    webrtc_ice_password: str = _setting("", "webrtc", "Password for the turn servers.")
    max_webrtc: int = _setting(50, "webrtc", "WebRTC connections open at the same time.")

    log_level: str = _setting("info", "logs", "debug, info, warning or error. Texts and audio are never logged.")
    log_format: str = _setting("text", "logs", "text or json.")
    otlp_endpoint: str = _setting(
        "", "logs", "Collector of OpenTelemetry that gets a span for each request, such as http://localhost:4318."
    )

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect."""
        if self.host in LOOPBACK_NAMES:
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def aliases(self) -> dict[str, str]:
        """``alias`` as a mapping."""
        return dict(item.split("=", 1) for item in self.alias)

    def check(self) -> None:
        """Settings that make no sense, or that are not safe, are refused.

        Raises:
            UsageError: with the setting's name.
        """
        for name in ("port", "wyoming_port", "audiosocket_port"):
            _expect(0 <= getattr(self, name) <= 65535, name, "a port from 0 to 65535")
        _expect(all(0 < port <= 65535 for port in self.more_ports), "more_ports", "ports from 1 to 65535")
        _expect(
            self.device in ("cpu", "cuda") or self.device.startswith("triton://"), "device", "cpu, cuda or triton://..."
        )
        _expect(self.log_level in ("debug", "info", "warning", "error"), "log_level", "debug, info, warning or error")
        _expect(self.log_format in ("text", "json"), "log_format", "text or json")
        _expect(all("=" in item.strip("=") for item in self.alias), "alias", "NAME=MODEL")
        _expect(self.workers >= 0, "workers", "0 or more")
        _expect(self.requests_per_minute >= 0, "requests_per_minute", "0 or more")
        _expect(self.max_wait_ms >= 0, "max_wait_ms", "0 or more")
        _expect(self.grace_s >= 0, "grace_s", "0 or more")
        positive = (
            "max_batch max_streams max_connections max_files max_queue_age_s inbox_s send_s max_session_s max_file_s "
            "max_message_kb max_upload_mb idle_s header_s file_wait_s job_workers max_jobs max_jobs_per_key "
            "max_spool_mb job_attempts job_lease_s job_keep_h history_days fetch_s "
            "call_keep_s max_calls max_webrtc"
        )
        for name in positive.split():
            _expect(getattr(self, name) > 0, name, "above 0")
        _expect(self.history in HISTORY, "history", " or ".join(HISTORY))
        remote = self.database.startswith(("postgresql://", "postgres://"))
        _expect(remote or not self.database, "database", "postgresql://...; without it SQLite is used")
        needs = {"database": bool(self.database), "history": self.history != "off", "webhooks": self.webhooks}
        for name, used in needs.items():
            _expect(not used or self.data_dir is not None, name, "left out, or given together with data_dir")
        _expect(bool(self.webhook_secret) or not self.webhooks, "webhook_secret", "given if webhooks are on")
        for name in ("private_networks", "audiosocket_peers"):
            _check_networks(name, getattr(self, name))
        for name, schemes in (("call_webhook", ("http://", "https://")), ("public_url", ("wss://", "ws://"))):
            value = getattr(self, name)
            _expect(not value or value.startswith(schemes), name, " or ".join(schemes) + "...")
        _expect(all(url.startswith(ICE) for url in self.webrtc_ice), "webrtc_ice", " or ".join(ICE) + "...")
        _expect((self.tls_cert is None) == (self.tls_key is None), "tls_cert", "given together with tls_key")
        if not self.loopback and self.wyoming_port and not self.allow_anonymous:
            raise UsageError(
                f"Wyoming knows no keys, and host {self.host} can be reached from other machines",
                remedy="set allow_anonymous if something else guards that port, or leave wyoming_port out",
            )
        if not self.loopback and self.keys_file is None and not self.allow_anonymous:
            raise UsageError(
                f"host {self.host} can be reached from other machines, and there is no keys_file",
                remedy="make a key with `rechka serve --new-key NAME --keys-file keys.toml`, or set allow_anonymous "
                "if something else guards the server",
            )


FIELDS: dict[str, dataclasses.Field[Any]] = {item.name: item for item in dataclasses.fields(Settings)}
"""The table: name -> field with ``group``, ``help`` and ``unit`` in its metadata."""

TYPES: dict[str, Any] = get_type_hints(Settings)


@dataclass(frozen=True, slots=True)
class Resolved:
    """Settings, and where each that is not the default came from."""

    settings: Settings
    sources: Mapping[str, str]

    def show(self) -> str:
        """The settings as a TOML file that can be used as one; secrets are left out."""
        lines: list[str] = []
        group = ""
        for name, item in FIELDS.items():
            if item.metadata["group"] != group:
                group = item.metadata["group"]
                lines += ["", f"# {group}"]
            value = getattr(self.settings, name)
            unit = f" [{item.metadata['unit']}]" if item.metadata["unit"] else ""
            source = self.sources.get(name, "default")
            comment = f"# {source}: {item.metadata['help']}{unit}"
            if value is None or (name in SECRETS and value):
                lines.append(f"# {name} = ...  {comment}")
            else:
                lines.append(f"{name} = {_toml(value)}  {comment}")
        return "\n".join(lines[1:]) + "\n"


def resolve(
    flags: Mapping[str, Any] | None = None,
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Resolved:
    """The settings from flags, variables and a file.

    Args:
        flags: name -> value or text; None values were not given.
        file: TOML; its keys are the settings' names.
        environ: variables; by default those of the process.

    Raises:
        UsageError: an unknown key, or a value of the wrong type or out of its range.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name, value in (_read(file) if file is not None else {}).items():
        if name not in FIELDS:
            known = ", ".join(FIELDS)
            raise UsageError(f"{file} has an unknown setting {name!r}", remedy=f"known: {known}")
        values[name], sources[name] = _checked(name, value, f"{name} in {file}"), str(file)
    for name in FIELDS:
        variable = PREFIX + name.upper()
        if variable in environ:
            values[name], sources[name] = _parsed(name, environ[variable], variable), variable
    for name, value in (flags or {}).items():
        if value is not None and value != ():
            flag = "--" + name.replace("_", "-")
            found = _parsed(name, value, flag) if isinstance(value, str) else _checked(name, value, flag)
            values[name], sources[name] = found, flag
    settings = Settings(**values)
    settings.check()
    return Resolved(settings, sources)


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise UsageError(f"{file} is larger than {MAX_FILE_BYTES} bytes", remedy="it is no settings file")
        return toml.loads(data.decode("utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror or error}", remedy="check the path") from None
    except ValueError as error:
        raise UsageError(
            f"{file} is not TOML: {error}", remedy="`rechka serve --show-config` prints an example"
        ) from None


def _kind(name: str) -> type:
    """str, int, float, bool, Path or tuple."""
    hint = TYPES[name]
    members = [member for member in get_args(hint) if member is not type(None)]
    if hint in (str, int, float, bool):
        return hint  # type: ignore[no-any-return]
    return Path if Path in members else tuple


def _item(name: str) -> type:
    member: type = get_args(TYPES[name])[0]
    return member


def _parsed(name: str, text: str, where: str) -> Any:
    """A value from a flag or a variable; lists are separated by commas."""
    kind = _kind(name)
    if kind is tuple:
        return tuple(_scalar(_item(name), part.strip(), where) for part in text.split(",") if part.strip())
    return _scalar(kind, text, where)


def _scalar(kind: type, text: str, where: str) -> Any:
    if kind is bool:
        known = {
            "1": True,
            "true": True,
            "yes": True,
            "on": True,
            "0": False,
            "false": False,
            "no": False,
            "off": False,
        }
        if text.strip().lower() not in known:
            raise UsageError(f"{where} must be true or false, got {text!r}")
        return known[text.strip().lower()]
    if kind is Path:
        return Path(text).expanduser() if text else None
    try:
        return kind(text)
    except ValueError:
        raise UsageError(f"{where} must be {_word(kind)}, got {text!r}") from None


def _checked(name: str, value: Any, where: str) -> Any:
    """A value that has a type already."""
    kind = _kind(name)
    if kind is tuple:
        items = [value] if isinstance(value, (str, int)) else value
        if not isinstance(items, (list, tuple)):
            raise UsageError(f"{where} must be a list, got {value!r}")
        return tuple(_typed(_item(name), item, where) for item in items)
    return _typed(kind, value, where)


def _typed(kind: type, value: Any, where: str) -> Any:
    if kind is Path and isinstance(value, (str, Path)):
        return Path(value).expanduser()
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise UsageError(f"{where} must be {_word(kind)}, got {value!r}")


def _word(kind: type) -> str:
    return {int: "a whole number", float: "a number", bool: "true or false", Path: "a path", str: "a text"}[kind]


def _check_networks(name: str, networks: tuple[str, ...]) -> None:
    try:
        for network in networks:
            ipaddress.ip_network(network)
    except ValueError as error:
        raise UsageError(f"{name}: {error}", remedy="such as 10.1.0.0/16 or fd00::/8") from None


def _expect(good: bool, name: str, wanted: str) -> None:
    if not good:
        raise UsageError(f"{name} must be {wanted}", remedy="see: rechka serve --show-config")


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, (int, float)):
        return repr(value)
    return json.dumps(str(value), ensure_ascii=False)  # a basic string of TOML too
