"""What only the TLS door does: TLS itself, HTTP/2, and certificates that change."""

import asyncio
import contextlib
import hashlib
import os
import shutil
import ssl
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from cypd.doors.asgi import REQUEST_SLABS, ZEROCOPY_SEND, Message, Receive, Scope, Send
from cypd.doors.plain import Limits
from cypd.doors.tls import CertificateError, Certificates
from tests.authority import Authority
from tests.doors.apps import Recorder, answer, hello, whole_body
from tests.doors.client import Client
from tests.doors.conftest import QUICK, OpenedTls, OpenTls

GIB = 1 << 30
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
PATIENT = Limits()  # as the daemon has them: a gigabyte takes a while


def anonymous_memory() -> int:
    """Bytes of this process that no file backs."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel does not tell")


async def curl(opened: OpenedTls, authority: Authority, *arguments: str, path: str = "/") -> str:
    """Run curl against the door to its end; return what it printed. It has to succeed."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed (Debian package curl)")
    url = f"https://127.0.0.1:{opened.address[1]}{path}"
    trusting = ("--silent", "--show-error", "--cacert", str(authority.root))
    process = await asyncio.create_subprocess_exec(
        *("curl", *trusting, *arguments, url),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return out.decode()


@pytest.fixture
def gibibyte(tmp_path: Path) -> Path:
    """A file of 1 GiB without a block on disk: what costs is the way, not the bytes."""
    file = tmp_path / "gibibyte"
    file.touch()
    os.truncate(file, GIB)
    return file


# TLS


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_versions(open_tls: OpenTls, version: ssl.TLSVersion) -> None:
    """TLS 1.2 and 1.3 are spoken."""
    opened = await open_tls(hello)
    opened.context.minimum_version = opened.context.maximum_version = version
    client = await opened.client()

    assert client.session.version == version.name.replace("_", ".")
    assert (await client.get()).body == b"hello"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_older_versions(open_tls: OpenTls) -> None:
    """TLS 1.1 is refused."""
    opened = await open_tls(hello)
    opened.context.set_ciphers("ALL:@SECLEVEL=0")
    opened.context.minimum_version = ssl.TLSVersion.TLSv1
    opened.context.maximum_version = ssl.TLSVersion.TLSv1_1

    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        await opened.client()


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["h2", "http/1.1"], "h2"),
        (["http/1.1", "h2"], "h2"),
        (["http/1.1"], "http/1.1"),
        ([], None),
    ],
)
async def test_alpn(
    open_tls: OpenTls, authority: Authority, offered: list[str], chosen: str | None
) -> None:
    """Who can speak HTTP/2 gets it, others HTTP/1.1 (RFC 9113 section 3.2)."""
    opened = await open_tls(hello)
    client = await opened.client(context=authority.context(*offered))

    assert client.session.protocol == chosen


async def test_plain_http_is_refused(open_tls: OpenTls) -> None:
    """A request without TLS gets no answer in the clear."""
    opened = await open_tls(hello)
    client = await Client.connect(opened.address)
    await client.send(GET)

    assert not (await client.read_all()).startswith(b"HTTP")
    client.close()


async def test_silent_clients_do_not_keep_others_waiting(open_tls: OpenTls) -> None:
    """Connections that never begin their handshake leave room for those that do."""
    opened = await open_tls(hello)
    silent = [await Client.connect(opened.address) for _ in range(200)]
    client = await opened.client()

    assert (await client.get()).body == b"hello"
    for each in silent:
        each.close()


# Certificates of clients


@pytest.fixture
def demanding(authority: Authority) -> Certificates:
    """Files that let in who has a certificate of the same authority."""
    return replace(authority.files, client_ca=authority.root)


async def test_client_certificate(
    open_tls: OpenTls, authority: Authority, demanding: Certificates
) -> None:
    """With a certificate signed by ``client_ca`` a client is let in."""
    opened = await open_tls(hello, files=demanding)
    context = authority.context()
    authority.ca.issue_cert("client@example.com").configure_cert(context)
    client = await opened.client(context=context)

    assert (await client.get()).body == b"hello"


@pytest.mark.parametrize("shows", ["none", "stranger"])
async def test_no_client_certificate(
    open_tls: OpenTls, authority: Authority, demanding: Certificates, shows: str
) -> None:
    """Without one, or with somebody else's, it is not, and the application hears nothing."""
    app = Recorder()
    opened = await open_tls(app, files=demanding)
    context = authority.context()
    if shows == "stranger":
        trustme.CA().issue_cert("client@example.com").configure_cert(context)

    with pytest.raises((ssl.SSLError, ConnectionResetError, EOFError)):  # noqa: PT012
        client = await opened.client(context=context)  # TLS 1.3: the refusal comes after this
        await client.get()
    assert app.scopes == []


# The files


def test_good_files(authority: Authority) -> None:
    """A certificate and its key are fine, with and without ``client_ca``."""
    authority.files.check()
    replace(authority.files, client_ca=authority.root).check()


@pytest.mark.parametrize("role", ["certificate", "key", "client_ca"])
@pytest.mark.parametrize(
    ("content", "message"), [(None, "no such file"), (b"", "in PEM"), (b"\xff\0 no PEM", "in PEM")]
)
def test_bad_files(
    authority: Authority, tmp_path: Path, role: str, content: bytes | None, message: str
) -> None:
    """What is missing or holds something else is named, with the reason."""
    bad = tmp_path / "bad.pem"
    if content is not None:
        bad.write_bytes(content)

    with pytest.raises(CertificateError, match=f"bad.pem.*{message}") as error:
        replace(authority.files, **{role: bad}).check()
    assert error.value.role == role


def test_key_of_another_certificate(authority: Authority, tmp_path: Path) -> None:
    """A key that does not belong to the certificate is found before anybody connects."""
    other = tmp_path / "other.pem"
    other.write_bytes(authority.ca.issue_cert("localhost").private_key_pem.bytes())

    with pytest.raises(CertificateError, match=r"other\.pem is not the key of .*certificate\.pem"):
        replace(authority.files, key=other).check()


def test_encrypted_key(authority: Authority, tmp_path: Path) -> None:
    """A key with a passphrase is refused by name, and nobody is asked for the passphrase."""
    from cryptography.hazmat.primitives import serialization

    plain = serialization.load_pem_private_key(authority.files.key.read_bytes(), None)
    encrypted = tmp_path / "encrypted.pem"
    encrypted.write_bytes(
        plain.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )

    with pytest.raises(CertificateError, match=r"encrypted\.pem is encrypted"):
        replace(authority.files, key=encrypted).check()


def test_key_that_rustls_can_not_use(authority: Authority, tmp_path: Path) -> None:
    """A key that OpenSSL knows and rustls does not is refused, where rustls alone would abort."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, certificate = tmp_path / "p521.pem", tmp_path / "certificate.pem"
    key.write_bytes(
        ec.generate_private_key(ec.SECP521R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    self_sign(key, certificate)

    with pytest.raises(CertificateError, match=r"p521\.pem: rustls can't use it"):
        Certificates(certificate, key).check()


def test_what_is_no_fault_of_the_key(authority: Authority) -> None:
    """Where TLS can't be tried for want of descriptors, that is said, and no file is blamed."""
    files = authority.files
    script = (
        "import pathlib, resource, sys\n"
        "from cypd.doors.tls import Certificates\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (11, 11))\n"
        "Certificates(*map(pathlib.Path, sys.argv[1:])).check()\n"
    )
    command = (sys.executable, "-c", script, str(files.certificate), str(files.key))
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert "OSError: TLS can't be tried: " in done.stderr
    assert "Too many open files" in done.stderr
    assert "CertificateError" not in done.stderr


def self_sign(key: Path, certificate: Path) -> None:
    """Write a certificate for ``key``, signed by itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = serialization.load_pem_private_key(key.read_bytes(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    issued = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(issued.public_bytes(serialization.Encoding.PEM))


# The end


async def test_a_drain_cuts_nobody_short(open_tls: OpenTls) -> None:
    """Who was let in before a drain and has asked for nothing yet is answered."""
    opened = await open_tls(hello, limits=PATIENT)
    clients = [await opened.client() for _ in range(8)]
    draining = asyncio.ensure_future(opened.door.drain(30))
    await asyncio.sleep(0.3)
    for client in clients:
        assert (await client.get()).body == b"hello"
        client.close()
    await draining


# HTTP/2


@pytest.mark.timeout(180)
async def test_upload_by_http_2(open_tls: OpenTls, authority: Authority, gibibyte: Path) -> None:
    """1 GiB comes in whole by HTTP/2, and memory does not grow with it."""
    most, sizes = 0, set()
    digest = hashlib.sha256()

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        nonlocal most
        assert scope["http_version"] == "2"
        receive = scope["extensions"][REQUEST_SLABS]["receive"]
        message: Message = {"more_body": True}
        while message["more_body"]:
            message = await receive()
            digest.update(message["body"])
            sizes.add(len(message["body"]))
            most = max(most, anonymous_memory())
        await answer(send, b"stored")

    opened = await open_tls(app, limits=PATIENT)
    before = anonymous_memory()
    arguments = ("--http2", "--upload-file", str(gibibyte))

    assert await curl(opened, authority, *arguments) == "stored"
    with gibibyte.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").digest() == digest.digest()
    assert most - before < 32 << 20
    assert max(sizes) >= PATIENT.slab_bytes


@pytest.mark.timeout(180)
async def test_pull_by_http_2(open_tls: OpenTls, authority: Authority, gibibyte: Path) -> None:
    """1 GiB goes out whole by HTTP/2, and memory does not grow with it."""
    most = 0

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"%d" % GIB)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        with gibibyte.open("rb") as file:
            await send({"type": ZEROCOPY_SEND, "file": file})

    opened = await open_tls(app, limits=PATIENT)
    before = anonymous_memory()
    form = "%{http_version} %{size_download}"
    pulling = asyncio.create_task(
        curl(opened, authority, "--http2", "--output", "/dev/null", "--write-out", form)
    )
    while not pulling.done():
        await asyncio.sleep(0.05)
        most = max(most, anonymous_memory())

    assert await pulling == f"2 {GIB}"
    assert most - before < 32 << 20


@pytest.mark.parametrize("protocol", ["--http1.1", "--http2"])
async def test_stalled_pull(
    open_tls: OpenTls, authority: Authority, gibibyte: Path, protocol: str
) -> None:
    """A client that hardly reads holds the application back; little waits in memory for it."""
    sent, begun, gone = 0, asyncio.Event(), asyncio.Event()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                body = bytes(256 * 1024)
                await send({"type": "http.response.body", "body": body, "more_body": True})
                sent += len(body)
                begun.set()
        except ConnectionError:
            gone.set()
            raise

    opened = await open_tls(app, limits=PATIENT)
    before = anonymous_memory()
    slowly = ("--limit-rate", "1k", "--max-time", "6", "--output", "/dev/null")
    pulling = asyncio.create_task(curl(opened, authority, protocol, *slowly))
    await asyncio.wait_for(begun.wait(), 20)
    await asyncio.sleep(1.5)
    held, grown = sent, anonymous_memory() - before
    with contextlib.suppress(AssertionError):  # its time is over: an error for curl
        await pulling

    assert 0 < held < 32 << 20
    assert grown < 32 << 20
    await asyncio.wait_for(gone.wait(), 20)


@pytest.mark.parametrize("protocol", ["--http1.1", "--http2"])
async def test_stalled_file(
    open_tls: OpenTls, authority: Authority, gibibyte: Path, protocol: str
) -> None:
    """Of a file, too, little waits in memory; and the application learns that the client goes."""
    begun, gone = asyncio.Event(), asyncio.Event()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"%d" % GIB)]
        begun.set()
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            with gibibyte.open("rb") as file:
                await send({"type": ZEROCOPY_SEND, "file": file})
        except ConnectionError:
            gone.set()
            raise

    opened = await open_tls(app, limits=PATIENT)
    before = anonymous_memory()
    slowly = ("--limit-rate", "1k", "--max-time", "6", "--output", "/dev/null")
    pulling = asyncio.create_task(curl(opened, authority, protocol, *slowly))
    await asyncio.wait_for(begun.wait(), 20)
    await asyncio.sleep(1.5)
    grown = anonymous_memory() - before
    with contextlib.suppress(AssertionError):  # its time is over: an error for curl
        await pulling

    assert grown < 32 << 20
    await asyncio.wait_for(gone.wait(), 20)


@pytest.mark.parametrize("protocol", ["--http1.1", "--http2"])
async def test_stalled_upload(
    open_tls: OpenTls, authority: Authority, gibibyte: Path, protocol: str
) -> None:
    """An application that does not read holds its client back; little waits in memory for it."""
    asked, release = asyncio.Event(), asyncio.Event()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        asked.set()
        await release.wait()
        await answer(send, b"", 413)

    opened = await open_tls(app, limits=PATIENT)
    before = anonymous_memory()
    arguments = ("--upload-file", str(gibibyte), "--write-out", "%{http_code} %{size_upload}")
    pushing = asyncio.create_task(curl(opened, authority, protocol, *arguments))
    await asyncio.wait_for(asked.wait(), 20)
    await asyncio.sleep(1.5)
    grown = anonymous_memory() - before
    release.set()
    status, sent = (await pushing).split()

    assert status == "413"
    assert int(sent) < 32 << 20
    assert grown < 32 << 20


@pytest.mark.parametrize("protocol", ["--http1.1", "--http2"])
@pytest.mark.parametrize("expect", ["Expect:", "Expect: 100-continue"])
async def test_early_refusal(
    open_tls: OpenTls, authority: Authority, gibibyte: Path, protocol: str, expect: str
) -> None:
    """A client that sends a gigabyte to nobody gets the refusal, and soon."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await answer(send, b"no", 401)

    opened = await open_tls(app)
    form = " %{http_code} %{size_upload}"
    upload = ("--header", expect, "--upload-file", str(gibibyte), "--write-out", form)
    body, status, sent = (await curl(opened, authority, protocol, *upload)).split()

    assert (body, status) == ("no", "401")
    assert int(sent) < GIB // 4


@pytest.mark.parametrize("protocol", ["--http1.1", "--http2"])
async def test_head_by_either_protocol(
    open_tls: OpenTls, authority: Authority, protocol: str
) -> None:
    """An answer to HEAD has the length of what GET would send, and no body."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await answer(send, b"", content_length="12345")

    opened = await open_tls(app)
    head = await curl(opened, authority, protocol, "--head")

    assert "content-length: 12345\r\n" in head.lower()
    assert head.endswith("\r\n\r\n")


@pytest.mark.parametrize("protocol", ["--http1.1", "--http2"])
async def test_upload_of_unknown_length(
    open_tls: OpenTls, authority: Authority, tmp_path: Path, protocol: str
) -> None:
    """A body without a declared length arrives whole."""
    app = Recorder()
    opened = await open_tls(app)
    content = os.urandom(1_000_000)
    (tmp_path / "content").write_bytes(content)
    chunked = ("--header", "Transfer-Encoding: chunked", "--request", "PATCH")
    if protocol == "--http2":
        chunked = ("--header", "Content-Length:", "--request", "PATCH")
    await curl(opened, authority, protocol, *chunked, "-T", str(tmp_path / "content"))

    assert app.bodies == [(content, True)]
    assert b"content-length" not in dict(app.only("headers"))


# The end

# RFC 9113 section 3.4: the preface, and SETTINGS without any; 6.8: what GOAWAY begins with
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
GOAWAY = bytes((0, 0, 8, 7, 0, 0, 0, 0, 0))


async def until(client: Client, mark: bytes) -> None:
    """Read up to some bytes."""
    received = b""
    while mark not in received:
        data = await client.receive()
        assert data, received
        received += data


@pytest.mark.alone
async def test_drain(open_tls: OpenTls, authority: Authority) -> None:
    """Idle connections end, by HTTP/2 with GOAWAY, nobody comes in; what runs is answered."""
    asked, release = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            asked.set()
            await release.wait()
        await answer(send, b"hello")

    opened = await open_tls(app, limits=PATIENT)
    idle, busy = await opened.client(), await opened.client()
    await idle.get()
    second = await opened.client(context=authority.context("h2"))
    await second.send(HELLO)
    await busy.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
    await asked.wait()
    draining = asyncio.create_task(opened.door.drain(30))
    await until(second, GOAWAY)

    assert await idle.read_all() == b""
    with pytest.raises(OSError):  # noqa: PT011 - refused, or reset in the queue
        await opened.client()
    assert not draining.done()
    release.set()
    response = await busy.answer()
    assert (response.body, response.headers[b"connection"]) == (b"hello", b"close")
    assert await busy.read_all() == b""
    second.close()
    await asyncio.wait_for(draining, 20)


async def test_drain_of_a_client_that_does_not_answer(
    open_tls: OpenTls, authority: Authority
) -> None:
    """A client of HTTP/2 that does not react to GOAWAY is cut, long before the deadline."""
    opened = await open_tls(hello, limits=PATIENT)
    client = await opened.client(context=authority.context("h2"))
    await client.send(HELLO)
    await until(client, bytes((0, 0, 0, 4, 1)))  # our SETTINGS are acknowledged
    async with asyncio.timeout(40):
        await opened.door.drain(300)

    assert opened.door.connections == 0


# What hyper lets pass


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        (b"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /%ff HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n12345", 400),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 100 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"b" * 40_000 + b"\r\n\r\n", 431),
    ],
)
async def test_refusals(open_tls: OpenTls, request_: bytes, status: int) -> None:
    """What the plaintext door refuses is refused here too, and the application hears nothing."""
    app = Recorder()
    opened = await open_tls(app)
    client = await opened.client()
    await client.send(request_)

    assert (await client.answer()).status == status
    assert app.scopes == []


async def test_http_1_0(open_tls: OpenTls) -> None:
    """HTTP/1.0 needs no Host, and the application sees that there was none."""
    app = Recorder()
    opened = await open_tls(app)

    assert (await opened.ask(b"GET / HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.0 200")
    assert (app.only("http_version"), app.only("headers")) == ("1.0", [])


async def test_no_product_name(open_tls: OpenTls) -> None:
    """Answers do not say which libraries are at work."""
    opened = await open_tls(hello)
    client = await opened.client()

    assert (await client.get()).headers[b"server"] == b"cypd"


async def test_file_of_another_length(
    open_tls: OpenTls, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that has not its declared length is never sent as if it had."""
    (tmp_path / "file").write_bytes(b"1234")

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"5")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        with (tmp_path / "file").open("rb") as file:
            await send({"type": ZEROCOPY_SEND, "file": file})

    opened = await open_tls(app)
    client = await opened.client()

    assert (await client.get()).status == 500
    assert "declared length" in caplog.text


async def test_slow_body(open_tls: OpenTls) -> None:
    """A client below the least rate is given up; the application keeps what came."""
    app = Recorder()
    opened = await open_tls(app, limits=replace(QUICK, rate_window=0.3))
    client = await opened.client()
    await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n1")
    await asyncio.sleep(0.05)
    await client.send(b"2")
    await asyncio.wait_for(app.heard.wait(), 5)

    assert app.bodies == [(b"12", False)]


async def test_body_at_a_fair_rate(open_tls: OpenTls) -> None:
    """A body at a fair rate may take longer than any window."""
    bodies: list[bytes] = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        body, whole = await whole_body(receive)
        assert whole
        bodies.append(body)
        await answer(send, b"stored")

    opened = await open_tls(app, limits=replace(QUICK, rate=100, rate_window=0.2))
    client = await opened.client()
    await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 300\r\n\r\n")
    for _ in range(30):
        await asyncio.sleep(0.03)
        await client.send(b"0123456789")

    assert (await client.answer()).body == b"stored"
    assert bodies == [b"0123456789" * 30]


async def test_connections_are_counted(open_tls: OpenTls) -> None:
    """The door knows how many connections it has, and how many requests run."""
    shown: list[str] = []

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        shown.append(repr(opened.door))
        await answer(send)

    opened = await open_tls(app)
    clients = [await opened.client() for _ in range(3)]
    await clients[0].get()

    assert shown == ["<TlsDoor 3 connections, 1 active>"]
