"""The official conformance suite of the OCI Distribution Specification, every option on.

https://github.com/opencontainers/distribution-spec/tree/main/conformance
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.daemon import Daemon
from tests.weed import Weed

SUITE = "github.com/opencontainers/distribution-spec/conformance@v0.0.0-20260831232431-97274622c111"

# What is optional in the specification is a promise here.
OPTIONS = (
    "CACHE_AUTH",
    "API_PING",
    "API_PULL",
    "API_PUSH",
    "API_REFERRER",
    "API_BLOBS_ATOMIC",
    "API_BLOBS_DELETE",
    "API_BLOBS_DIGEST_HEADER",
    "API_BLOBS_MOUNT_ANONYMOUS",
    "API_BLOBS_UPLOAD_CANCEL",
    "API_MANIFESTS_ATOMIC",
    "API_MANIFESTS_DELETE",
    "API_MANIFESTS_DIGEST_HEADER",
    "API_MANIFESTS_TAG_PARAM",
    "API_TAGS_ATOMIC",
    "API_TAGS_DELETE",
    "API_TAGS_LIST",
    "DATA_IMAGE",
    "DATA_INDEX",
    "DATA_INDEX_LIST",
    "DATA_SPARSE",
    "DATA_ARTIFACT",
    "DATA_SUBJECT",
    "DATA_SUBJECT_MISSING",
    "DATA_ARTIFACT_LIST",
    "DATA_SUBJECT_LIST",
    "DATA_DATA_FIELD",
    "DATA_NONDISTRIBUTABLE",
    "DATA_CUSTOM_FIELDS",
    "DATA_NO_LAYERS",
    "DATA_EMPTY_BLOB",
    "DATA_SHA512",
)

# Refused by default, since content that nobody has pushed cannot be served.
LENIENT = {
    "CYPD_MANIFESTS_ALLOW_SPARSE": "true",
    "CYPD_MANIFESTS_ALLOW_URLS": "store.example.com",
}


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The suite's program, built once."""
    if shutil.which("go") is None:
        pytest.skip("go is not installed (Go 1.24 or newer builds the conformance suite)")
    binaries = tmp_path_factory.mktemp("suite")
    environment = os.environ | {"GOBIN": str(binaries), "GOTOOLCHAIN": "local"}
    built = subprocess.run(
        ["go", "install", SUITE], env=environment, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    return binaries / "conformance"


@pytest.fixture(params=["filesystem", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mapping[str, str]]:
    """Each engine that keeps blobs, as the settings that make the daemon use it."""
    if request.param == "filesystem":
        yield {}
        return
    with Weed(tmp_path) as weed:
        yield weed.environment


@pytest.mark.timeout(900)  # the first build downloads and compiles
@pytest.mark.parametrize("version", ["1.1", "dev"])
def test_conformance(suite: Path, tmp_path: Path, version: str, storage: Mapping[str, str]) -> None:
    """Every test of the suite passes; none is skipped, none is switched off."""
    with Daemon(tmp_path, LENIENT | dict(storage)) as registry:
        environment = {
            **{f"OCI_{option}": "true" for option in OPTIONS},
            "OCI_VERSION": version,
            "OCI_REGISTRY": registry.host,
            "OCI_TLS": "disabled",
            "OCI_USERNAME": registry.user,
            "OCI_PASSWORD": registry.password,
            "OCI_RESULTS_DIR": str(tmp_path),
            "OCI_LOG": "error",
        }
        run = subprocess.run(
            [suite], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    configuration, outcomes = read_results(tmp_path / "results.yaml")
    assert [] == [line for line in configuration if line.endswith("false")]
    assert {} == not_passed(tmp_path / "junit.xml")
    assert {"Pass"} == set(outcomes.values()), outcomes
    assert 0 == run.returncode, run.stdout + run.stderr


def read_results(path: Path) -> tuple[list[str], dict[str, str]]:
    """Return the settings the suite ran with, and the outcome by API and by kind of data."""
    configuration, apis, outcomes = path.read_text().partition("\napis:\n")
    assert apis, "the suite writes its results in another form now"
    return configuration.splitlines(), dict(re.findall(r"^  (.+): (\w+)$", outcomes, re.MULTILINE))


def not_passed(path: Path) -> dict[str, str]:
    """Return what the suite says about each of its tests that did not pass."""
    tests = list(ElementTree.parse(path).iter("testcase"))
    assert len(tests) > 800, "the suite has become shorter"
    return {
        test.attrib["name"]: f"{test.attrib['status']}: {test.findtext('system-out')}"
        for test in tests
        if test.attrib["status"] != "passed"
    }
