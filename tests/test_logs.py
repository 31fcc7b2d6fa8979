"""What is logged, in which form, and what never is: a record is a line, whatever a client sends."""

import io
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cypd.doors.asgi import Receive, Scope, Send
from cypd.logs import FIELDS, JournalFormatter, JsonFormatter, TextFormatter, is_journal, printable
from cypd.request_log import Choice, logged
from tests.daemon import Daemon, basic
from tests.doors.apps import answer, hello
from tests.test_cli import run
from tests.v2.client import Client

NASTY = "a\r\nERROR cypd: forged\x1b[31m\x00\u2028\u2029\x85\u202e\ud800\x7f" + "x" * 100_000
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=50)
FORMATTERS = {"text": TextFormatter(), "json": JsonFormatter()}


def record(
    message: str, error: Exception | None = None, level: int = logging.ERROR
) -> logging.LogRecord:
    """Return a record made of a client's words."""
    made = logging.LogRecord("cypd.v2", level, __file__, 1, "%s", (message,), None)
    if error:
        made.exc_info = (type(error), error, None)
    setattr(made, FIELDS, {"path": message, "status": 200})
    return made


@given(ANY_TEXT)
@example(NASTY)
def test_printable_text_is_one_line_without_tricks(text: str) -> None:
    """What comes out is printable, bounded, and unchanged where nothing was wrong with it."""
    shown = printable(text)

    assert shown.isprintable()
    assert len(shown) < 48 * 1024  # journald's LineMax
    assert shown.splitlines() == [shown] * bool(shown)
    if text.isprintable() and len(text) < 4096:
        assert shown == text


@given(ANY_TEXT)
@example(NASTY)
def test_a_json_record_is_one_object(text: str) -> None:
    """Message, fields and traceback hold a client's words, and it is one object on one line."""
    line = FORMATTERS["json"].format(record(text, ValueError(text)))
    document = json.loads(line)

    assert line.splitlines() == [line]
    assert line.isprintable()
    assert (document["level"], document["logger"], document["status"]) == ("error", "cypd.v2", 200)
    assert document["message"] == document["path"] == printable(text)


@pytest.mark.parametrize("letter", ["x", "\\", '"', "\u202e", "\U0001f433", "\U000e0001", "\n"])
def test_a_record_is_no_longer_than_the_journal_takes(letter: str) -> None:
    """It splits what is longer than 48 KiB, and half an object is none."""
    text = letter * 100_000
    line = FORMATTERS["json"].format(record(text, ValueError(text)))

    assert len(line.encode()) < 48 * 1024
    assert json.loads(line)["traceback"]


@given(ANY_TEXT)
@example(NASTY)
def test_a_text_record_can_not_be_forged(text: str) -> None:
    """Only a record's first line begins at the margin; no other character ends a line."""
    first, *rest = FORMATTERS["text"].format(record(text, ValueError(text))).split("\n")

    assert re.match(r"\d{4}-\d\d-\d\d [\d:,]+ ERROR cypd\.v2: ", first)
    assert all(line.startswith("    ") for line in rest)
    assert all(line.isprintable() for line in (first, *rest))


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6)],
)
@pytest.mark.parametrize("form", ["text", "json"])
def test_the_journal_gets_priorities(form: str, level: int, priority: int) -> None:
    """Each line, a traceback's too, begins with its priority, and a client can't change it."""
    formatter = JournalFormatter(FORMATTERS[form])
    lines = formatter.format(record("<0>panic\n<0>", ValueError("\n<0>"), level)).split("\n")

    assert all(line.startswith(f"<{priority}>") for line in lines)
    assert not any(line.startswith("<0>") for line in lines)


def test_the_journal_is_known_by_its_inode(tmp_path: Path) -> None:
    """A stream is the journal's if systemd says so, and not if it was sent elsewhere since."""
    with (tmp_path / "journal").open("w") as journal, (tmp_path / "other").open("w") as other:
        found = os.fstat(journal.fileno())
        variables = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert is_journal(journal, variables)
        assert not is_journal(other, variables)
        assert not is_journal(journal, {})
    assert not is_journal(io.StringIO(), variables)


class Lines(logging.Handler):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.fields: list[dict[str, object]] = []
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.fields.append(getattr(record, FIELDS))
        self.texts.append(record.getMessage())


@pytest.fixture
def lines() -> Iterator[Lines]:
    """The lines of the log of requests."""
    handler, logger = Lines(), logging.getLogger("cypd.requests")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


async def status_of_path(scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer with the status that the path names."""
    await answer(send, b"hello", int(scope["path"][1:4]))


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("all", [200, 201, 404, 404, 401, 401, 500]),
        ("errors", [404, 401, 500]),
        ("off", []),
    ],
)
async def test_what_is_logged_is_chosen(lines: Lines, choice: Choice, expected: list[int]) -> None:
    """Errors are what went wrong: not a HEAD that finds nothing, nor a 401 before signing in."""
    application = logged(status_of_path, choice)
    nobody, somebody = Client(application), Client(application, "admin", "x")
    logged_ids = []
    for client, method, status in (
        (nobody, "GET", 200),
        (nobody, "PUT", 201),
        (nobody, "HEAD", 404),
        (nobody, "GET", 404),
        (nobody, "GET", 401),
        (somebody, "GET", 401),
        (nobody, "GET", 500),
    ):
        response = await client.request(method, f"/{status}")
        if "x-request-id" in response.headers:
            logged_ids.append(response.headers["x-request-id"])

    assert [fields["status"] for fields in lines.fields] == expected
    assert [fields["trace"] for fields in lines.fields] == logged_ids
    assert all(re.fullmatch("[0-9a-f]{8}", trace) for trace in logged_ids)


async def test_a_sample_is_one_in_a_hundred(lines: Lines) -> None:
    """Of good requests every hundredth is logged, of errors each."""
    client = Client(logged(status_of_path, "sampled"))
    for _ in range(299):
        await client.request("GET", "/200")
    await client.request("GET", "/500")

    assert [fields["status"] for fields in lines.fields] == [200, 200, 500]


def test_off_costs_nothing() -> None:
    """Without a log of requests the application is called as it is."""
    assert logged(hello, "off") is hello


@given(st.text(min_size=1, max_size=80))
@example("a" * 65)
@example("x\r\nset-cookie: a")
async def test_a_clients_trace_id_is_taken_if_it_is_plain(given_id: str) -> None:
    """``X-Request-ID`` comes back if it is 1 to 64 of ``A-Za-z0-9._-``, else another does."""
    client = Client(logged(status_of_path, "all"))
    encoded = given_id.encode("utf-8", "replace").decode("latin-1")
    response = await client.request("GET", "/200", headers={"X-Request-ID": encoded})
    returned = response.headers["x-request-id"]

    if re.fullmatch("[A-Za-z0-9._-]{1,64}", given_id, re.ASCII):
        assert returned == given_id
    else:
        assert re.fullmatch("[0-9a-f]{8}", returned)


@given(path=ANY_TEXT, user=ANY_TEXT)
@example(NASTY, NASTY)
async def test_a_request_can_not_forge_a_line(path: str, user: str) -> None:
    """Path and user are one word each: no space, so that they can't pass for what follows them."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        scope["user"] = user
        await hello(scope, receive, send)

    handler, logger = Lines(), logging.getLogger("cypd.requests")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    path = path.replace("?", "")
    await Client(logged(application, "all")).request("GET", f"/{path}")
    logger.removeHandler(handler)
    words = handler.texts[0].split(" ")

    assert len(words) == 10
    assert words[2:4] == ["200", "5"]
    assert handler.texts[0].isascii()
    assert len(handler.texts[0]) < 20_000


async def test_an_answer_that_breaks_off_is_an_error(lines: Lines) -> None:
    """The line of an answer without its end says so; a client that leaves is no error."""

    async def breaks(scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise (ConnectionResetError if scope["path"] == "/left" else ZeroDivisionError)

    client = Client(logged(breaks, "errors"))
    with pytest.raises(ConnectionResetError):
        await client.request("GET", "/left")
    with pytest.raises(ZeroDivisionError):
        await client.request("GET", "/broken")

    assert [fields["path"] for fields in lines.fields] == ["/broken"]
    assert lines.texts[0].endswith(" cut")


def test_a_daemon_logs_what_it_answers_and_no_secret(tmp_path: Path) -> None:
    """From start to stop each line is an object; requests are there with all that was asked for."""
    environment = {"CYPD_LOG_FORMAT": "json", "CYPD_LOG_REQUESTS": "all", "CYPD_LOG_LEVEL": "debug"}
    with Daemon(tmp_path, environment) as daemon:
        token = json.loads(daemon.request("GET", "/v2/auth?scope=registry:catalog:*").body)["token"]
        headers = {"Authorization": f"Bearer {token}", "X-Request-ID": "my.id-1"}
        answer = daemon.request("GET", "/v2/_catalog?secret=in-the-query", headers=headers)
        wrong = daemon.request("GET", "/v2/", headers={"Authorization": basic("admin", "guess")})
        pid = daemon.pid
    text = daemon.log.read_text()
    records = [json.loads(line) for line in text.splitlines()]
    requests = [it for it in records if it["logger"] == "cypd.requests"]
    found = next(it for it in requests if it["trace"] == "my.id-1")

    assert (answer.status, answer.headers["X-Request-ID"]) == (200, "my.id-1")
    assert (found["method"], found["path"], found["status"]) == ("GET", "/v2/_catalog", 200)
    assert (found["bytes"], found["user"]) == (len(answer.body), "admin")
    assert (found["address"], found["complete"]) == ("127.0.0.1", True)
    assert found["milliseconds"] > 0
    assert {it["pid"] for it in records} == {pid}
    assert wrong.status == 401
    for secret in (token, daemon.password, "in-the-query", "guess", basic("admin", "guess")[6:]):
        assert secret not in text


COMPLAINTS = """
import logging, threading, warnings
from cypd import logs

class Broken:
    def __del__(self):
        raise ValueError("in a finaliser")

logs.configure("debug", "json", {})
warnings.warn("a warning\\nERROR cypd: forged")
logging.getLogger("botocore.auth").debug("a signature")
logging.getLogger("cypd.v2").debug("our own")
logging.getLogger("granian").warning("of a library")
Broken()
thread = threading.Thread(target=lambda: 1 / 0, name="worker")
thread.start()
thread.join()
raise KeyError("at the end")
"""


def test_whatever_is_said_is_a_record() -> None:
    """Warnings, finalisers, threads and the end itself; what libraries debug is left out."""
    done = subprocess.run(
        [sys.executable, "-c", COMPLAINTS], capture_output=True, text=True, check=False
    )
    found = [json.loads(line) for line in done.stderr.splitlines()]

    assert [it["level"] for it in found] == [
        "warning", "debug", "warning", "error", "critical", "critical",
    ]  # fmt: skip
    assert "a warning\\nERROR cypd: forged" in found[0]["message"]
    assert found[3]["traceback"][-1] == "ValueError: in a finaliser"
    assert "worker" in found[4]["message"]
    assert found[5]["traceback"][-1] == "KeyError: 'at the end'"


def test_what_ends_the_start_is_a_record_too(tmp_path: Path) -> None:
    """In JSON the reason why the daemon can't start is an object like all others."""
    environment = {"CYPD_LOG_FORMAT": "json", "CYPD_SERVER_LISTEN": "192.0.2.1:5000"}
    done = run("serve", folder=tmp_path, environment=environment)
    [line] = done.stderr.splitlines()

    assert done.returncode == 78
    assert json.loads(line)["message"].startswith("server.listen: 192.0.2.1:5000: ")
