"""Configuration: the file, the environment over it, and errors that say what to do."""

import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cypd.config import Config, ConfigError, load

EXAMPLE = Path(__file__).parent.parent / "config" / "cypd.toml"


def test_the_example_is_the_defaults() -> None:
    """config/cypd.toml has every key, with the value that holds without it."""
    assert Config() == load(EXAMPLE, {})
    document = tomllib.loads(EXAMPLE.read_text())
    config = Config()
    keys = {s: set(getattr(config, s).__struct_fields__) for s in config.__struct_fields__}
    assert keys == {section: set(values) for section, values in document.items()}


def test_every_key_of_the_example_is_explained() -> None:
    """Each key has a comment above it."""
    lines = EXAMPLE.read_text().splitlines()
    for before, line in pairwise(lines):
        if "=" in line and not line.startswith("#"):
            assert before.startswith("# "), line


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    """A variable wins over the file, a list is comma-separated, others are not ours."""
    file = tmp_path / "cypd.toml"
    file.write_text('[server]\nlisten = ["127.0.0.1:1"]\nidle_timeout = 5\n[log]\nlevel = "debug"')
    environment = {
        "CYPD_SERVER_LISTEN": "0.0.0.0:5000, [::1]:5001",
        "CYPD_ACCESS_DELETE": "false",
        "CYPD_METADATA_MAP_SIZE": "10485760",
        "CYPD_AUTH_ADMIN_PASSWORD": "12345678",
        "CYPD_MANIFESTS_ALLOW_URLS": "",
        "PATH": "/bin",
    }
    config = load(file, environment)

    assert [("0.0.0.0", 5000), ("::1", 5001)] == config.server.addresses()
    assert (5.0, "debug", False) == (
        config.server.idle_timeout, config.log.level, config.access.delete,
    )  # fmt: skip
    assert (10485760, "12345678") == (config.metadata.map_size, config.auth.admin_password)
    assert config.manifests.allow_urls == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[servr]", "unknown section: servr; did you mean server?"),
        ("[server]\nlistn = []", "unknown key in [server]: listn; did you mean listen?"),
        ("server = 3", "[server] is a section"),
        ('[server]\nlisten = "127.0.0.1:5000"', "server.listen: expected `array`, got `str`"),
        ("[server]\nlisten = [5000]", "server.listen: expected `str`, got `int`"),
        ("[server]\nlisten = []", "server.listen: expected `array` of length >= 1"),
        ('[server]\nlisten = ["5000"]', "'5000' is not host:port"),
        ('[server]\nlisten = ["a:65536"]', "'a:65536' is not host:port"),
        ("[server]\nidle_timeout = 0", "server.idle_timeout: expected `float` > 0.0"),
        ("[access]\ndelete = 1", "access.delete: expected `bool`, got `int`"),
        ('[access]\nanonymous = "push"', "access.anonymous: invalid enum value 'push'"),
        ('[storage]\nmoving_from = "s3"', "s3.bucket: "),
        ('[storage]\nmoving_from = "filesystem"', "storage.moving_from: storage.driver "),
        ("[metadata]\nmap_size = 1.5", "metadata.map_size: expected `int`, got `float`"),
        ("[auth]\nadmin_password = 1", "auth.admin_password: expected `str`, got `int`"),
        ('[storage]\ndriver = "s3"', "s3.bucket: "),
        ('[s3]\nendpoint = "s3.example.com"', "s3.endpoint: "),
        ('[s3]\nprefix = "/a"', "s3.prefix: "),
        ('[s3]\naccess_key = "a"', "s3.access_key, s3.secret_key: "),
        ("[s3]\npart_size = 1", "s3.part_size: "),
        ('[s3]\nredirect_networks = ["10.0.0.1/8"]', "redirect_networks: 10.0.0.1/8 has host bits"),
        ("[x", "cypd.toml: "),
        ("a = 1\na = 2", "cypd.toml: "),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    """The message says which key is wrong, and how, or which one was probably meant."""
    file = tmp_path / "cypd.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        load(file, {})

    assert message in str(error.value)


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("CYPD_SERVER_LISTN", "x", "unknown environment variable: CYPD_SERVER_LISTN; did you"),
        ("CYPD_SERVER_LISTEN", "x", "'x' is not host:port"),
        ("CYPD_ACCESS_DELETE", "perhaps", "CYPD_ACCESS_DELETE: expected `bool`"),
        ("CYPD_SERVER_IDLE_TIMEOUT", "-1", "CYPD_SERVER_IDLE_TIMEOUT: expected `float` > 0.0"),
        ("CYPD_LOG_LEVEL", "loud", "CYPD_LOG_LEVEL: invalid enum value 'loud'"),
        ("CYPD_", "x", "unknown environment variable"),
    ],
)
def test_a_mistake_in_the_environment_is_named(variable: str, text: str, message: str) -> None:
    """The message names the variable."""
    with pytest.raises(ConfigError) as error:
        load(None, {variable: text})

    assert message in str(error.value)


def test_a_file_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    """A missing file, a folder, and a file of other bytes are errors, not defaults."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "missing", tmp_path, tmp_path / "binary"):
        with pytest.raises(ConfigError, match=path.name):
            load(path, {})


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_an_error(text: str) -> None:
    """Whatever the variable holds, it is understood or refused by name."""
    try:
        config = load(None, {"CYPD_SERVER_LISTEN": text})
    except ConfigError as error:
        assert "CYPD_SERVER_LISTEN" in str(error)
    else:
        assert all(host and 0 <= port < 65536 for host, port in config.server.addresses())
