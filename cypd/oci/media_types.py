"""Media types of manifests (image-spec media-types.md, and Docker's of 2015)."""

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
# Of image-spec 1.1's release candidates; withdrawn, but pushed by ORAS 0.x and Notation 0.x.
OCI_ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"

INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFESTS = frozenset({OCI_MANIFEST, OCI_ARTIFACT, DOCKER_MANIFEST}) | INDEXES


def essence(content_type: str) -> str:
    """Return ``content_type`` without parameters, in lower case (RFC 9110 8.3.1)."""
    return content_type.partition(";")[0].strip().lower()
