"""A stand-in for Trivy: it pulls the image with its token and finds what the layers say.

A layer is a JSON document: ``vulnerabilities`` as Trivy writes them, ``packages``, ``sleep``
(seconds), ``fail`` (what it says before it ends with status 1). It takes the arguments that the
real one has, and no others.
"""

import json
import os
import resource
import ssl
import sys
import time
import uuid
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

IMAGE = ["image", "--image-src", "remote", "--scanners", "vuln", "--format", "json",
         "--list-all-pkgs", "--no-progress", "--"]  # fmt: skip
CONVERT = ["convert", "--format", "cyclonedx", "--"]


def main(arguments: list[str]) -> None:
    """Do as Trivy does."""
    if arguments[: len(IMAGE)] == IMAGE:
        sys.stdout.write(json.dumps(_scan(*arguments[len(IMAGE) :])))
    elif arguments == ["version", "--format", "json"]:
        database = {"Version": 2, "UpdatedAt": "2026-01-02T03:04:05.678Z"}
        sys.stdout.write(json.dumps({"Version": "0.99.0", "VulnerabilityDB": database}))
    elif arguments[: len(CONVERT)] == CONVERT:
        sys.stdout.write(json.dumps(_sbom(*arguments[len(CONVERT) :])))
    else:
        sys.exit(f"unknown arguments: {arguments}")


def _scan(image: str) -> dict[str, Any]:
    host, _, rest = image.partition("/")
    repository, _, digest = rest.partition("@")
    manifest = json.loads(_get(f"{host}/v2/{repository}/manifests/{digest}"))
    found: list[Any] = []
    packages: list[Any] = []
    for layer in manifest["layers"]:
        content = json.loads(_get(f"{host}/v2/{repository}/blobs/{layer['digest']}"))
        sys.stderr.write(f"INFO\tlayer {layer['digest']}\n")
        if "record" in content:
            told = {
                "arguments": sys.argv[1:],
                "environment": dict(os.environ),
                "niceness": os.getpriority(os.PRIO_PROCESS, 0),
                "cpu": resource.getrlimit(resource.RLIMIT_CPU)[1],
                "core": resource.getrlimit(resource.RLIMIT_CORE)[1],
            }
            Path(content["record"]).write_text(json.dumps(told))
        time.sleep(content.get("sleep", 0))
        if "fail" in content:
            sys.exit(content["fail"])
        found += [
            it | {"Layer": {"Digest": layer["digest"]}} for it in content.get("vulnerabilities", ())
        ]
        packages += content.get("packages", ())
    results = {"Target": "t", "Class": "lang-pkgs", "Packages": packages, "Vulnerabilities": found}
    return {"SchemaVersion": 2, "ArtifactName": image, "Metadata": {}, "Results": [results]}


def _sbom(report: str) -> dict[str, Any]:
    (result,) = json.loads(Path(report).read_text())["Results"]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid4()}",
        "version": 1,
        "metadata": {"timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ")},
        "components": [{"type": "library", "name": it["Name"]} for it in result["Packages"]],
    }


def _get(place: str) -> bytes:
    """Ask by https, with the certificate checked; if it is to be insecure, unchecked or by http.

    Any value of the variable makes it so, "false" as well (pkg/flag/global_flags.go).
    """
    if not os.environ.get("TRIVY_NON_SSL"):
        return _get_from(f"https://{place}", ssl.create_default_context())
    try:
        return _get_from(f"https://{place}", ssl._create_unverified_context())
    except URLError:
        return _get_from(f"http://{place}", None)


def _get_from(url: str, context: ssl.SSLContext | None) -> bytes:
    headers = {
        "Authorization": f"Bearer {os.environ['TRIVY_REGISTRY_TOKEN']}",
        "Accept": "application/vnd.oci.image.manifest.v1+json",
    }
    with urlopen(Request(url, headers=headers), timeout=20, context=context) as answer:
        content: bytes = answer.read()
        return content


if __name__ == "__main__":
    main(sys.argv[1:])
