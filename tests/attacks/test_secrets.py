"""Secrets go through every flow there is, and are looked for wherever something is kept or told."""

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.access.house import House
from tests.daemon import Daemon, basic

SETTINGS = {
    "CYPD_LOG_FORMAT": "json",
    "CYPD_LOG_LEVEL": "debug",
    "CYPD_LOG_REQUESTS": "all",
    "CYPD_AUTH_REGISTRATION": "open",
    "CYPD_WEBHOOKS_ALLOW_NETWORKS": "127.0.0.0/8",
}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A daemon that logs all it can, with people in it."""
    with Daemon(tmp_path, SETTINGS) as daemon:
        house = House(daemon)
        yield house
        house.close()


def test_no_secret_is_told(house: House) -> None:
    """Passwords, tokens, keys and guesses are neither in the log nor in the audit log.

    Nor is what its owner alone can know in the metadata.
    """
    told = _canaries(house)
    known = {it.password for it in house.people.values()}
    known |= {token for it in house.people.values() for token in it.tokens.values()}
    pages = [
        json.dumps(house.api("GET", f"/audit-logs?page_size=100&page={page}", house.admin))
        for page in range(1, 6)
    ]
    log = house.daemon.log.read_text()
    metadata = (house.daemon.state / "metadata" / "data.mdb").read_bytes()
    key = (house.daemon.state / "token-key").read_text().strip()

    assert "user.create_token" in "".join(pages)
    assert log.count('"path":"/api/v1/user/tokens"') >= len(house.people)
    assert [it for it in told | known | {key} if it in log or it in "".join(pages)] == []
    assert [it for it in known | {key} if it.encode() in metadata] == []


def _canaries(house: House) -> set[str]:
    """Use each kind of credential, rightly and wrongly; return them."""
    owner = house.people["owner"]
    found = {it.access for it in house.people.values()}
    for person in house.people.values():
        found.add(house.registry_token(house.password(person), "repository:secret/app:pull"))
    document = {"username": owner.name, "password": owner.password}
    refresh = house.api("POST", "/auth/login", None, document)["refresh_token"]
    renewed = house.api("POST", "/auth/refresh", None, {"refresh_token": refresh})
    found |= {refresh, renewed["refresh_token"], renewed["access_token"]}
    guess = secrets.token_urlsafe()
    house.ask("GET", "/v2/", basic(owner.name, guess))
    house.ask("GET", "/v2/", f"Bearer {guess}")
    house.ask("GET", f"/v2/auth?password={guess}&service={guess}")
    house.ask("POST", "/api/v1/auth/login", None, {"username": owner.name, "password": guess})
    house.ask("POST", "/api/v1/auth/login", None, f'{{"password": "{guess}"'.encode())
    grant = f"grant_type=password&service=cypd&username={owner.name}&password={guess}"
    house.ask("POST", "/v2/auth", None, grant.encode())
    found |= {guess, *_second_factor(house)}
    hook = house.webhook(house.project)
    hook |= {"secret": secrets.token_urlsafe(), "headers": {"X-Key": secrets.token_urlsafe()}}
    house.api("POST", "/webhooks", owner, hook)
    return found | {hook["secret"], hook["headers"]["X-Key"]}


def _second_factor(house: House) -> set[str]:
    pyotp = pytest.importorskip("pyotp")
    guest = house.people["guest"]
    secret = house.api("POST", "/user/mfa", guest)["secret"]
    code = {"code": pyotp.TOTP(secret).now()}
    return {secret, *house.api("POST", "/user/mfa/activate", guest, code)["recovery_codes"]}
