"""The command line, as an operator meets it."""

import subprocess
import sys
from http.client import HTTPResponse, HTTPSConnection
from pathlib import Path

import pytest

import cypd
from tests.authority import Authority
from tests.daemon import CYPD, Daemon, free_port

TLS = {"CYPD_SERVER_TLS_LISTEN": "127.0.0.1:0"}


def run(
    *arguments: str, folder: Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a folder."""
    return subprocess.run(
        [CYPD, *arguments],
        cwd=folder,
        env={
            "PATH": "/usr/bin:/bin",
            "CYPD_SERVER_METRICS_LISTEN": "",  # its port may be another's
            **(environment or {}),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_version_and_help(tmp_path: Path) -> None:
    """``--version`` says which one, ``--help`` at each level says what there is."""
    assert run("--version", folder=tmp_path).stdout == f"cypd {cypd.__version__}\n"
    for arguments in ([], ["serve"], ["config"], ["config", "check"]):
        shown = run(*arguments, "--help", folder=tmp_path)
        assert shown.returncode == 0
        assert "usage: cypd" in shown.stdout
    assert run(folder=tmp_path).returncode == 2


@pytest.mark.parametrize("command", ["--version", "health", "completion bash"])
def test_a_command_loads_what_it_needs(tmp_path: Path, command: str) -> None:
    """Neither the registry nor the libraries that make it serve: a health check has to be cheap."""
    code = (
        "import sys\n"
        "from cypd.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit:\n    pass\n"
        "print(*sys.modules, sep='\\n', file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command.split()],
        cwd=tmp_path, capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip
    loaded = set(done.stderr.split("\n"))

    assert "cypd.commands.parser" in loaded
    heavy = {"blacksheep", "granian", "aiohttp", "lmdb", "cryptography", "uvloop", "botocore"}
    assert loaded & heavy == set()
    assert loaded & {"cypd.daemon", "cypd.composition", "cypd.metadata"} == set()


def test_check_tells_whether_the_configuration_is_good(tmp_path: Path) -> None:
    """A good one is 0 and says where data goes; a bad one is 78 and says why, on one line."""
    good = run("config", "check", folder=tmp_path)
    (tmp_path / "bad.toml").write_text("[server]\nlistn = []")
    bad = run("config", "check", "--config", "bad.toml", folder=tmp_path)

    assert good.returncode == 0
    assert f"data in {tmp_path}/data" in good.stdout
    assert bad.returncode == 78
    assert bad.stderr == "cypd: unknown key in [server]: listn; did you mean listen?\n"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"CYPD_STORAGE_ROOT": "/proc/cypd"}, "storage.root: /proc/cypd: "),
        ({"CYPD_STORAGE_ROOT": "file/below"}, "Not a directory"),
        ({"CYPD_SERVER_LISTEN": "192.0.2.1:5000"}, "server.listen: 192.0.2.1:5000: "),
        ({"CYPD_SERVER_LISTN": "x"}, "did you mean CYPD_SERVER_LISTEN?"),
        ({"CYPD_SERVER_TLS_LISTEN": "5443"}, "tls_listen: '5443' is not host:port"),
        (TLS, "tls.certificate: server.tls_listen needs a PEM file here"),
        (TLS | {"CYPD_TLS_CERTIFICATE": "file"}, "tls.key: server.tls_listen needs a PEM file"),
        (
            TLS | {"CYPD_TLS_CERTIFICATE": "no", "CYPD_TLS_KEY": "file"},
            "tls.certificate: no: no such file or directory",
        ),
    ],
)
def test_what_can_not_be_used_ends_the_start(
    tmp_path: Path, environment: dict[str, str], message: str
) -> None:
    """Exit status 78 and one line that names the key, so that systemd does not try again."""
    (tmp_path / "file").touch()
    done = run("serve", folder=tmp_path, environment=environment)

    assert done.returncode == 78
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_the_first_start_tells_where_the_password_is(tmp_path: Path) -> None:
    """The path is printed and the password is not; it works, and the next start keeps it."""
    daemon = Daemon(tmp_path, {"CYPD_AUTH_ADMIN_PASSWORD": ""})
    with daemon:
        file = daemon.state / "admin-password"
        daemon.password = file.read_text().strip()
        assert daemon.request("GET", "/v2/").status == 200
        assert daemon.request("GET", "/v2/", auth=False).status == 401
    with daemon:
        assert daemon.request("GET", "/v2/").status == 200
    log = daemon.log.read_text()

    assert str(file) in log
    assert daemon.password not in log
    assert log.count("admin-password") == 1


def test_the_state_is_for_its_owner_alone(tmp_path: Path) -> None:
    """Nothing below the state folder can be read by others, whatever the umask."""
    root = tmp_path / "new"
    environment = {"CYPD_STORAGE_ROOT": str(root), "CYPD_AUTH_ADMIN_PASSWORD": ""}
    daemon = Daemon(tmp_path, environment)
    with daemon:
        daemon.password = (root / "admin-password").read_text().strip()
        digest = "sha256:" + "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        pushed = daemon.request("POST", f"/v2/aa/blobs/uploads/?digest={digest}", body=b"")
        assert pushed.status == 201
    for path in (root, *root.rglob("*")):
        assert path.stat().st_mode & 0o007 == 0, path


def test_metadata_that_can_not_be_read_ends_the_start(tmp_path: Path) -> None:
    """A damaged metadata file is not touched: status 70, and a line that says which."""
    damaged = tmp_path / "data" / "metadata" / "data.mdb"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"x" * 8192)
    environment = {"CYPD_SERVER_LISTEN": f"127.0.0.1:{free_port()}"}
    done = run("serve", folder=tmp_path, environment=environment)

    assert done.returncode == 70
    assert f"the metadata can't be opened: {damaged.parent}" in done.stderr
    assert "Traceback" not in done.stderr
    assert damaged.read_bytes() == b"x" * 8192


def test_an_address_in_use_is_named(tmp_path: Path) -> None:
    """A second daemon on the same port ends with the reason."""
    with Daemon(tmp_path) as daemon:
        environment = {"CYPD_SERVER_LISTEN": daemon.host, "CYPD_STORAGE_ROOT": str(tmp_path / "x")}
        done = run("serve", folder=tmp_path, environment=environment)

    assert done.returncode == 78
    assert f"server.listen: {daemon.host}: address already in use" in done.stderr


def test_several_addresses_are_served(tmp_path: Path) -> None:
    """IPv4 and IPv6 side by side."""
    port = free_port()
    daemon = Daemon(tmp_path)
    daemon.environment["CYPD_SERVER_LISTEN"] = f"{daemon.host},[::1]:{port}"
    with daemon:
        assert daemon.request("GET", "/v2/").status == 200
    assert f"http://[::1]:{port}" in daemon.log.read_text()


def tls_files(authority: Authority) -> dict[str, str]:
    """Return the environment that switches TLS on with the files of ``authority``."""
    certificate, key = str(authority.files.certificate), str(authority.files.key)
    return TLS | {"CYPD_TLS_CERTIFICATE": certificate, "CYPD_TLS_KEY": key}


def test_check_looks_at_the_certificate(tmp_path: Path) -> None:
    """A certificate and key that fit are fine; a key of another certificate is 78, and named."""
    authority, other = (Authority(tmp_path / name) for name in ("a", "b"))
    good = run("config", "check", folder=tmp_path, environment=tls_files(authority))
    mixed = tls_files(authority) | {"CYPD_TLS_KEY": str(other.files.key)}
    bad = run("config", "check", folder=tmp_path, environment=mixed)

    assert (good.returncode, bad.returncode) == (0, 78)
    assert "127.0.0.1:0 (TLS)" in good.stdout
    assert f"tls.key: {other.files.key} is not the key of {authority.files.certificate}" in (
        bad.stderr
    )


def test_tls_is_served_beside_plain_http(tmp_path: Path) -> None:
    """Both doors lead to the same registry, and both are drained when it stops."""
    authority = Authority(tmp_path / "tls")
    daemon = Daemon(tmp_path, tls_files(authority))
    daemon.environment["CYPD_SERVER_TLS_LISTEN"] = address = f"127.0.0.1:{free_port()}"
    with daemon:
        challenged = https_get(address, authority)
        assert challenged.status == 401
        assert challenged.headers["www-authenticate"].startswith(
            f'Bearer realm="https://{address}/'
        )
        assert daemon.request("GET", "/v2/").status == 200
    assert f"https://{address}" in daemon.log.read_text()


def https_get(address: str, authority: Authority) -> HTTPResponse:
    """GET /v2/ by TLS; the certificate has to be good."""
    connection = HTTPSConnection(address, context=authority.context(), timeout=10)
    try:
        connection.request("GET", "/v2/")
        response = connection.getresponse()
        response.read()
        return response
    finally:
        connection.close()


def test_descriptors_are_not_scarce(tmp_path: Path) -> None:
    """The daemon takes as many descriptors as it may have: each connection is one."""
    with Daemon(tmp_path) as daemon:
        limits = Path(f"/proc/{daemon.pid}/limits").read_text()

    (line,) = [line for line in limits.splitlines() if line.startswith("Max open files")]
    assert line.split()[3] == line.split()[4]


def test_an_end_is_not_disturbed() -> None:
    """Whoever sends SIGTERM twice does not change the status with which a process ends."""
    code = (
        "import os, signal, sys\n"
        "from cypd.exits import end_undisturbed\n"
        "end_undisturbed()\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "sys.exit(7)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 7
