"""What a project wants nobody to pull: asked about where a project does so, and nowhere else."""

from cypd.access import Principal
from cypd.oci.errors import Code, OCIError
from cypd.oci.names import RepositoryName
from cypd.projects.ports import Changes
from cypd.projects.scan_policy import ScanPolicy
from cypd.registry.inventory_ports import Window
from cypd.registry.ports import StoredManifest
from tests.v2.conftest import Engines, Registry, build


class Asked:
    """A guard that refuses everything, and knows what it was asked."""

    def __init__(self) -> None:
        self.about: list[tuple[str, str, str]] = []

    def __call__(
        self, principal: Principal, repository: RepositoryName, manifest: StoredManifest
    ) -> None:
        """Refuse."""
        self.about.append((principal.name, str(repository), str(manifest.digest)))
        raise OCIError(Code.DENIED, "not this one")


async def set_policy(registry: Registry, policy: ScanPolicy) -> None:
    """Give the project ``library`` a policy."""
    standing = registry.projects.standing("library", "")
    assert standing
    changes = Changes(updated_at=2.0, scan_policy=policy)
    await registry.projects.change_project(standing.project.id, changes)


async def pulls(registry: Registry, repository: str, *references: str) -> list[int]:
    """Pull by GET and HEAD; return the statuses."""
    return [
        (await registry.admin.request(method, f"/v2/{repository}/manifests/{it}")).status
        for it in references
        for method in ("GET", "HEAD")
    ]


async def test_the_guard_is_asked_where_there_is_a_policy(engines: Engines) -> None:
    """By tag and digest, GET and HEAD, from the moment that the policy is set until it is lifted;
    other projects hear nothing of it, and pushes and blobs go on.
    """
    guard = Asked()
    registry = build(*engines, guard=guard)
    digest = await registry.push_image(b"layer")
    await registry.push_image(b"layer", repository="other/app")
    assert [200] * 4 == await pulls(registry, "library/app", "latest", digest)
    await set_policy(registry, ScanPolicy(block_at="high"))
    assert [403] * 4 == await pulls(registry, "library/app", "latest", digest)
    assert [200] * 2 == await pulls(registry, "other/app", "latest")
    assert [("admin", "library/app", digest)] * 4 == guard.about
    await registry.push_image(b"layer", tag="again")
    assert [404] * 2 == await pulls(registry, "library/app", "none")
    await set_policy(registry, ScanPolicy(block_unscanned=True))
    assert [403] * 2 == await pulls(registry, "library/app", "latest")
    await set_policy(registry, ScanPolicy())

    assert [200] * 4 == await pulls(registry, "library/app", "latest", digest)


async def test_what_is_refused_is_said_in_the_words_of_the_specification(engines: Engines) -> None:
    """An error document with DENIED and the reason; what was not pulled is not counted."""
    registry = build(*engines, guard=Asked())
    await registry.push_image(b"layer")
    await set_policy(registry, ScanPolicy(block_at="low"))
    answer = await registry.admin.request(
        "GET", "/v2/library/app/manifests/latest", headers={"If-None-Match": "*"}
    )
    await registry.pulls.flush()

    assert (403, "DENIED") == (answer.status, answer.code)
    assert "not this one" == answer.json()["errors"][0]["message"]

    (tag,) = registry.inventory.list_tags(RepositoryName("library/app"), Window(0, 9)).items
    assert 0 == tag.pull_count
