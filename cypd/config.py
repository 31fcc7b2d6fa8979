"""Configuration: a TOML file, overridden by the environment, as frozen objects.

``CYPD_<SECTION>_<KEY>`` overrides the file; a list is comma-separated there. Every key with its
default stands in ``config/cypd.toml``.
"""

import difflib
import ipaddress
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

_Positive = Annotated[float, Meta(gt=0)]
_NotNegative = Annotated[float, Meta(ge=0)]
_Origin = Annotated[str, Meta(pattern=r"^(https?://[A-Za-z0-9.:\[\]-]+)?$")]
_ADDRESS = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^\s:,\[\]]+)):([0-9]{1,5})", re.ASCII)


class ConfigError(Exception):
    """The configuration can't be used; the message says which key, and what to do."""


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Server(_Section, frozen=True):
    """Where and how requests come in."""

    external_url: _Origin = ""
    listen: Annotated[tuple[str, ...], Meta(min_length=1)] = ("127.0.0.1:5000",)
    tls_listen: tuple[str, ...] = ()
    workers: Annotated[int, Meta(ge=0, le=64)] = 0
    metrics_listen: tuple[str, ...] = ("127.0.0.1:5001",)
    max_connections: Annotated[int, Meta(ge=1)] = 10_000
    header_timeout: _Positive = 10.0
    idle_timeout: _Positive = 75.0
    drain_timeout: _Positive = 60.0

    def __post_init__(self) -> None:
        self.addresses()
        self.tls_addresses()
        self.metrics_addresses()

    def addresses(self) -> list[tuple[str, int]]:
        """Return ``listen`` as (host, port)."""
        return [_address("listen", address) for address in self.listen]

    def tls_addresses(self) -> list[tuple[str, int]]:
        """Return ``tls_listen`` as (host, port)."""
        return [_address("tls_listen", address) for address in self.tls_listen]

    def metrics_addresses(self) -> list[tuple[str, int]]:
        """Return ``metrics_listen`` as (host, port)."""
        return [_address("metrics_listen", address) for address in self.metrics_listen]


def _address(key: str, text: str) -> tuple[str, int]:
    match = _ADDRESS.fullmatch(text)
    if not match or int(match[3]) > 65535:
        raise ValueError(f"{key}: {text!r} is not host:port or [IPv6]:port")
    return match[1] or match[2], int(match[3])


def _require_networks(key: str, networks: tuple[str, ...]) -> None:
    for network in networks:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None


class Tls(_Section, frozen=True):
    """The files that ``server.tls_listen`` needs."""

    certificate: str = ""
    key: str = ""
    client_ca: str = ""


class Storage(_Section, frozen=True):
    """Where blobs are kept."""

    root: Annotated[str, Meta(min_length=1)] = "data"
    driver: Literal["filesystem", "s3"] = "filesystem"
    moving_from: Literal["", "filesystem", "s3"] = ""
    min_free: Annotated[int, Meta(ge=0)] = 256 << 20


class S3(_Section, frozen=True):
    """The store that ``storage.driver = "s3"`` keeps blobs in."""

    endpoint: _Origin = ""
    public_endpoint: _Origin = ""
    bucket: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{0,255}$")] = ""
    region: Annotated[str, Meta(min_length=1)] = "us-east-1"
    access_key: str = ""
    secret_key: str = ""
    prefix: Annotated[str, Meta(pattern=r"^([A-Za-z0-9_][A-Za-z0-9._/-]{0,254})?$")] = ""
    path_style: bool = True
    ca_file: str = ""
    redirect: Literal["off", "on", "auto"] = "off"
    redirect_networks: tuple[str, ...] = ()
    cache_size: Annotated[int, Meta(ge=0)] = 0
    part_size: Annotated[int, Meta(ge=5 << 20, le=5 << 30)] = 16 << 20
    connect_timeout: _Positive = 5.0
    read_timeout: _Positive = 60.0

    def __post_init__(self) -> None:
        _require_networks("redirect_networks", self.redirect_networks)


class Metadata(_Section, frozen=True):
    """How metadata is kept."""

    map_size: Annotated[int, Meta(ge=1 << 20)] = 64 << 30


class Auth(_Section, frozen=True):
    """Who can sign in, and how long it lasts."""

    admin_password: str = ""
    registration: Literal["closed", "open"] = "closed"
    access_ttl: _Positive = 900.0
    refresh_ttl: _Positive = 604800.0
    token_ttl: Annotated[float, Meta(ge=60)] = 900.0
    max_failures_per_account: Annotated[int, Meta(ge=1)] = 10
    max_failures_per_address: Annotated[int, Meta(ge=1)] = 50
    failure_window: _Positive = 900.0

    def __post_init__(self) -> None:
        if self.admin_password and not 8 <= len(self.admin_password) <= 1024:
            raise ValueError("admin_password: a password has 8 to 1024 characters")


class Access(_Section, frozen=True):
    """What may be done without, and with, signing in."""

    anonymous: Literal["none", "public", "pull"] = "public"
    delete: bool = True


class Projects(_Section, frozen=True):
    """Projects, and how much they may hold."""

    auto_create: bool = True
    default_quota: Annotated[int, Meta(ge=-1)] = 10 << 30
    max_quota: Annotated[int, Meta(ge=0)] = 100 << 30


class Api(_Section, frozen=True):
    """The product's own API."""

    always_200: bool = False


class Uploads(_Section, frozen=True):
    """Upload sessions."""

    session_ttl: _Positive = 86400.0
    max_sessions_per_user: Annotated[int, Meta(ge=1)] = 1000
    max_sessions_per_project: Annotated[int, Meta(ge=0)] = 0


class Limits(_Section, frozen=True):
    """How much one client, or one project, may have a second; 0 switches a limit off."""

    requests_per_client: _NotNegative = 0.0
    requests_per_project: _NotNegative = 0.0
    bytes_per_client: _NotNegative = 0.0
    bytes_per_project: _NotNegative = 0.0
    connections_per_client: Annotated[int, Meta(ge=0)] = 0
    burst: _Positive = 10.0


class Manifests(_Section, frozen=True):
    """What manifests may reference."""

    allow_sparse: bool = False
    allow_urls: tuple[str, ...] = ()


class Webhooks(_Section, frozen=True):
    """What is sent to others when something happens."""

    allow_networks: tuple[str, ...] = ()
    timeout: _Positive = 10.0
    keep: Annotated[int, Meta(ge=1)] = 1000
    keep_age: _Positive = 2_592_000.0

    def __post_init__(self) -> None:
        _require_networks("allow_networks", self.allow_networks)


class Events(_Section, frozen=True):
    """What is kept of what happened."""

    keep: Annotated[int, Meta(ge=1)] = 100_000
    keep_age: _Positive = 604_800.0
    audit_age: _Positive = 31_536_000.0
    pulls: bool = True
    pull_interval: _Positive = 60.0


class Scanning(_Section, frozen=True):
    """The search for vulnerabilities, and what one scan may take."""

    engine: Literal["embedded", "trivy", "off"] = "embedded"
    trivy: Annotated[str, Meta(min_length=1)] = "trivy"
    on_push: bool = False
    on_new_data: bool = True
    parallel: Annotated[int, Meta(ge=1, le=64)] = 1
    queue: Annotated[int, Meta(ge=1)] = 1000
    history: Annotated[int, Meta(ge=1)] = 10
    database: str = ""
    update_url: Annotated[str, Meta(pattern=r"^https?://[A-Za-z0-9.:\[\]-]+(/[^?#\s]*)?$")] = (
        "https://osv-vulnerabilities.storage.googleapis.com"
    )
    timeout: _Positive = 600.0
    cpu_seconds: Annotated[int, Meta(ge=1)] = 300
    memory: Annotated[int, Meta(ge=256 << 20)] = 1 << 30
    max_bytes: Annotated[int, Meta(ge=1 << 20)] = 32 << 30
    max_files: Annotated[int, Meta(ge=1)] = 500_000
    max_ratio: Annotated[int, Meta(ge=1)] = 100


class Gc(_Section, frozen=True):
    """The removal of what nobody uses any more."""

    interval: _Positive = 3600.0
    blob_grace: _Positive = 86400.0
    loose_grace: _Positive = 86400.0


class Metrics(_Section, frozen=True):
    """What is told of the registry at /metrics, and to whom."""

    token: str = ""
    public: bool = False
    projects: Annotated[int, Meta(ge=0, le=1000)] = 100

    def __post_init__(self) -> None:
        if self.token and not re.fullmatch(r"[\x21-\x7e]{16,1024}", self.token):
            raise ValueError("token: a token has 16 to 1024 characters of ASCII, without spaces")


class Scrub(_Section, frozen=True):
    """The reading of what is kept, to find what a disk has forgotten."""

    interval: Annotated[float, Meta(ge=0)] = 604_800.0
    rate: Annotated[int, Meta(ge=0)] = 32 << 20


class Log(_Section, frozen=True):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"
    requests: Literal["off", "errors", "sampled", "all"] = "errors"


class Config(_Section, frozen=True):
    """The whole configuration."""

    server: Server = Server()
    tls: Tls = Tls()
    storage: Storage = Storage()
    s3: S3 = S3()
    metadata: Metadata = Metadata()
    auth: Auth = Auth()
    access: Access = Access()
    projects: Projects = Projects()
    api: Api = Api()
    uploads: Uploads = Uploads()
    limits: Limits = Limits()
    manifests: Manifests = Manifests()
    webhooks: Webhooks = Webhooks()
    events: Events = Events()
    scanning: Scanning = Scanning()
    gc: Gc = Gc()
    metrics: Metrics = Metrics()
    scrub: Scrub = Scrub()
    log: Log = Log()

    def vulndb(self) -> Path:
        """Return the folder of the vulnerability data."""
        return Path(self.scanning.database or Path(self.storage.root) / "vulndb")


_SECTIONS: dict[str, type[_Section]] = {
    field.name: field.type for field in msgspec.structs.fields(Config)
}


def load(file: Path | None, environment: Mapping[str, str]) -> Config:
    """Return the configuration; raise ConfigError for what can't be read or is not understood."""
    settings = _read(file) if file else {}
    _require_known(settings, _SECTIONS, "section")
    for section, values in settings.items():
        if not isinstance(values, dict):
            raise ConfigError(f"[{section}] is a section: write its keys below it")
        _require_known(values, _keys(section), f"key in [{section}]")
        _convert(section, values, strict=True)
    for variable, text in environment.items():
        if variable.startswith("CYPD_"):
            section, key = _split(variable)
            value = _from_text(section, key, text)
            _convert(section, {key: value}, strict=False, source=variable)
            settings.setdefault(section, {})[key] = value
    config = msgspec.convert(settings, Config, strict=False)
    _require_whole(config)
    return config


def _require_whole(config: Config) -> None:
    """Check what the file and the environment say together."""
    s3, storage = config.s3, config.storage
    if "s3" in (storage.driver, storage.moving_from) and not s3.bucket:
        raise ConfigError("s3.bucket: the name of the bucket that blobs are in is needed")
    if storage.moving_from == storage.driver:
        raise ConfigError("storage.moving_from: storage.driver is the same")
    if bool(s3.access_key) != bool(s3.secret_key):
        raise ConfigError("s3.access_key, s3.secret_key: there is one without the other")


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: {error}") from None


def _keys(section: str) -> dict[str, Any]:
    return {field.name: field.type for field in msgspec.structs.fields(_SECTIONS[section])}


def _require_known(given: Mapping[str, Any], known: Mapping[str, Any], what: str) -> None:
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0)
            raise ConfigError(f"unknown {what}: {name}; did you mean {near[0]}?")


def _split(variable: str) -> tuple[str, str]:
    section, _, key = variable.removeprefix("CYPD_").lower().partition("_")
    known = {f"CYPD_{s}_{k}".upper(): None for s in _SECTIONS for k in _keys(s)}
    _require_known({variable: None}, known, "environment variable")
    return section, key


def _from_text(section: str, key: str, text: str) -> Any:
    if "tuple" in str(_keys(section)[key]):
        return [item.strip() for item in text.split(",") if item.strip()]
    return text


def _convert(section: str, values: dict[str, Any], *, strict: bool, source: str = "") -> _Section:
    try:
        return msgspec.convert(values, _SECTIONS[section], strict=strict)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$.")
        key = re.sub(r"[^a-z_].*", "", path)
        name = source or ".".join(filter(None, (section, key)))
        raise ConfigError(f"{name}: {message[:1].lower()}{message[1:]}") from None
