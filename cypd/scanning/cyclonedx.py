"""A list of an image's packages as CycloneDX 1.6."""

import uuid
from collections.abc import Mapping

import orjson
from cyclonedx.model import Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

import cypd
from cypd.oci.digest import Digest
from cypd.scanning.packages import Distribution, Package, package_url
from cypd.scanning.ports import ScanFailed
from cypd.scanning.wire import MAX_SBOM_BYTES


def make_sbom(
    repository: str,
    digest: Digest,
    packages: Mapping[Package, int],
    layers: list[Digest],
    distribution: Distribution | None,
) -> bytes:
    """Return the document as JSON; raise ScanFailed if it is too large to be kept.

    The same packages make the same bytes, with no time and no chance in them: so an image that is
    scanned again does not gather documents that say the same.
    """
    bom = Bom(serial_number=uuid.UUID(int=0), version=1)
    bom.metadata.timestamp = None  # type: ignore[assignment]  # the schema needs none
    bom.metadata.component = _image(repository, digest)
    bom.metadata.tools.components.add(
        Component(name="cypd", version=cypd.__version__, type=ComponentType.APPLICATION)
    )
    if distribution:
        bom.components.add(
            Component(
                name=distribution.id,
                version=distribution.version or None,
                description=distribution.name,
                type=ComponentType.OPERATING_SYSTEM,
            )
        )
    bom.components.update(
        _component(package, layers[number], distribution) for package, number in packages.items()
    )
    # It would give each component a dependency on nothing, in a time that grows with their square.
    bom.validate = lambda: True  # type: ignore[method-assign]
    document = orjson.loads(JsonV1Dot6(bom).output_as_string())
    name = orjson.dumps(document, option=orjson.OPT_SORT_KEYS).decode()
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, name)}"
    content = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    if len(content) > MAX_SBOM_BYTES:
        raise ScanFailed(f"the list of packages takes more than {MAX_SBOM_BYTES} bytes")
    return content


def _image(repository: str, digest: Digest) -> Component:
    name = repository.rpartition("/")[2]
    return Component(
        name=repository,
        version=digest,
        type=ComponentType.CONTAINER,
        purl=PackageURL("oci", None, name, digest),
        bom_ref=digest,
    )


def _component(package: Package, layer: Digest, distribution: Distribution | None) -> Component:
    url = package_url(package, distribution)
    group, _, name = package.name.rpartition(":" if package.kind == "maven" else "/")
    if package.kind not in ("maven", "npm", "golang"):
        group, name = "", package.name
    return Component(
        name=name,
        group=group or None,
        version=package.version,
        type=ComponentType.LIBRARY,
        purl=PackageURL.from_string(url),
        bom_ref=url,
        properties=[Property(name="cypd:layer", value=layer)],
    )
