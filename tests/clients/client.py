"""What the tests ask of a registry client, and how a program of one is run."""

import os
import shlex
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import ClassVar, NamedTuple, Self

from tests.clients.images import Layout
from tests.daemon import PASSWORD, USER

Environment = dict[str, str]


class ClientError(Exception):
    """The program exited with a failure; the message is what it printed."""


class Pulled(NamedTuple):
    """What a client says it has pulled: the digest of the manifest or index, and of the config."""

    digest: str
    config: str


class Client(ABC):
    """One program with a store of its own under ``directory``, running while in its context."""

    packages: ClassVar[dict[str, str]]  # command: the Debian package it comes in
    needs_root: ClassVar[bool] = True

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.output = directory / "output"
        self.stack = ExitStack()  # what runs while in the context
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(directory)}
        self.environment["TMPDIR"] = str(directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    @abstractmethod
    def trust(self, host: str, authority: Path) -> None:
        """Speak TLS from now on; ``authority`` (PEM) has signed the certificate of ``host``."""

    @abstractmethod
    def login(self, host: str, password: str = PASSWORD, user: str = USER) -> None:
        """Use these credentials from now on; a client may check them at once."""

    @abstractmethod
    def load(self, layout: Layout, name: str) -> None:
        """Take what ``layout`` holds into the store, ready to be pushed as ``name``."""

    @abstractmethod
    def push_command(self, name: str) -> Sequence[str]:
        """Return the command that pushes ``name``."""

    @abstractmethod
    def push(self, name: str) -> str:
        """Push what was loaded as ``name``; return the digest the client reports."""

    @abstractmethod
    def pull(self, name: str) -> Pulled:
        """Pull ``name`` into the store."""

    def run(self, *command: str, stdin: str = "") -> str:
        """Run a program to its end; return what it printed."""
        return run(command, self.environment, stdin)

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a program; the caller waits for it, and finds what it printed in ``output``."""
        with self.output.open("ab") as output:
            return subprocess.Popen(
                command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )


def run(command: Sequence[str], environment: Environment, stdin: str = "") -> str:
    """Run ``command`` to its end; return its standard output."""
    done = subprocess.run(
        command,
        env=environment,
        input=stdin,
        text=True,
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        raise ClientError(f"{shlex.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


@contextmanager
def service(
    command: Sequence[str], environment: Environment, log: Path, probe: Sequence[str]
) -> Iterator[None]:
    """Keep ``command`` running for the block, which begins when ``probe`` succeeds."""
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            _wait_until_it_answers(process, probe, environment, log)
            yield
        finally:
            process.terminate()


def _wait_until_it_answers(
    process: subprocess.Popen[bytes], probe: Sequence[str], environment: Environment, log: Path
) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            run(probe, environment)
        except ClientError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise ClientError(f"{error}\n{log.read_text(errors='replace')[-4000:]}") from None
            time.sleep(0.05)
        else:
            return
