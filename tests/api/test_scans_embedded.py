"""The engine that comes with cypd, from the push of an image to the refusal of its pull."""

import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from cypd.oci.digest import Digest
from tests.access.house import House
from tests.api.test_scans import Project, pull
from tests.daemon import CYPD, Daemon
from tests.samples import image

RECORD = {
    "id": "PYSEC-2024-1",
    "modified": "2026-01-01T00:00:00Z",
    "summary": "a hole",
    "severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}],
    "affected": [
        {
            "package": {"ecosystem": "PyPI", "name": "vulnerable"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.1"}]}],
            "versions": ["1.0"],
        }
    ],
}


def layer(version: str) -> bytes:
    """Return a layer with a Python package."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        content = f"Metadata-Version: 2.1\nName: vulnerable\nVersion: {version}\n".encode()
        name = f"usr/lib/python3/dist-packages/vulnerable-{version}.dist-info/METADATA"
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def import_record(daemon: Daemon, directory: Path, record: Any) -> None:
    """Import a record of the vulnerability data beside the daemon."""
    file = directory / "record.json"
    file.write_text(json.dumps(record))
    command = [CYPD, "vulndb", "import", str(file)]
    subprocess.run(command, check=True, env=daemon.environment, timeout=120)


@pytest.mark.timeout(180)
def test_an_image_from_its_push_to_the_refusal_of_its_pull(tmp_path: Path) -> None:
    """Without data it is told what to import; with it, what is found has its layer and its SBOM;
    newer data has the image scanned again.
    """
    with Daemon(tmp_path, {"CYPD_AUTH_REGISTRATION": "open"}) as daemon:
        house = House(daemon)
        project = Project(house)
        bad, good = layer("1.0"), layer("1.1")
        for tag, content in (("bad", bad), ("good", good)):
            project.put(tag, image(content), content)
        access = f"Bearer {house.admin.access}"
        body = {"repository": project.repository, "reference": "bad"}
        refused = json.loads(house.ask("POST", "/api/v1/scans", access, body).body)
        assert 50010 == refused["code"]
        assert "cypd vulndb" in refused["message"]
        import_record(daemon, tmp_path, RECORD)
        scans = {tag: project.scan(tag) for tag in ("bad", "good")}
        (found,) = scans["bad"]["findings"]

        assert ("PYSEC-2024-1", "vulnerable", "1.0", "1.1", "critical", str(Digest.of(bad))) == (
            found["id"],
            found["package"],
            found["installed_version"],
            found["fixed_version"],
            found["severity"],
            found["layer"],
        )
        assert [] == scans["good"]["findings"]
        assert [1, 1] == [it["images"][0]["packages"] for it in scans.values()]
        sbom = json.loads(project.v2("GET", f"manifests/{scans['bad']['sbom_digest']}").body)
        document = json.loads(project.v2("GET", f"blobs/{sbom['layers'][0]['digest']}").body)
        assert ("CycloneDX", "1.6") == (document["bomFormat"], document["specVersion"])
        assert scans["bad"]["sbom_digest"] == project.scan("bad")["sbom_digest"]
        project.policy(block_at="high")
        assert [403, 200] == [pull(project, tag)[0] for tag in ("bad", "good")]

        import_record(daemon, tmp_path, RECORD | {"withdrawn": "2026-02-01T00:00:00Z"})
        project.eventually(lambda: pull(project, "bad")[0] == 200)
        assert "data" == project.vulnerabilities("?reference=bad")[2]["trigger"]
        house.close()
