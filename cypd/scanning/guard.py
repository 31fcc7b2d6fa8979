"""Refuses pulls of what a project does not want to be pulled, since it is vulnerable."""

import time
from collections import Counter, OrderedDict

import msgspec

from cypd.access import Principal, is_scanner
from cypd.oci import images
from cypd.oci.digest import Digest
from cypd.oci.errors import Code, OCIError
from cypd.oci.names import RepositoryName
from cypd.projects.ports import ProjectStore
from cypd.projects.scan_policy import THRESHOLDS, ScanPolicy
from cypd.registry.ports import StoredManifest
from cypd.scanning.ports import Severity
from cypd.scanning.scan_ports import ScanStore

_MEMORY_ENTRIES = 4096

_Verdict = tuple[tuple[str, Severity], ...]


class Guard:
    """Knows what was found in what somebody wants to pull."""

    def __init__(self, projects: ProjectStore, scans: ScanStore) -> None:
        self._projects = projects
        self._scans = scans
        # What a scan found never changes; a new one has another number.
        self._verdicts: OrderedDict[tuple[int, Digest], _Verdict] = OrderedDict()
        self._images: OrderedDict[Digest, bool] = OrderedDict()

    def check(
        self, principal: Principal, repository: RepositoryName, manifest: StoredManifest
    ) -> None:
        """Raise DENIED if the policy of its project refuses an image.

        What is no image is not refused: signatures and SBOMs tell of images.
        """
        if is_scanner(principal):
            return
        standing = self._projects.standing(repository.project, "")
        policy = standing.project.scan_policy if standing else ScanPolicy()
        if not policy.is_set or not self._is_image(manifest):
            return
        number = self._scans.latest(repository, manifest.digest)
        if number is not None:
            self._require_harmless(policy, number, manifest.digest)
        elif policy.block_unscanned:
            raise OCIError(
                Code.DENIED,
                "this project refuses pulls of images that were not scanned, as this one; "
                "ask for a scan of it",
                detail={"digest": manifest.digest, "block_unscanned": True},
            )

    def _require_harmless(self, policy: ScanPolicy, number: int, digest: Digest) -> None:
        if policy.block_at is None:
            return
        least = THRESHOLDS.index(policy.block_at) + 1
        excused = policy.excused(time.time())
        bad = [
            severity
            for name, severity in self._verdict(number, digest)
            if severity.rank >= least and name not in excused
        ]
        if not bad:
            return
        counts = Counter(bad)
        worst = ", ".join(f"{counts[it]} {it}" for it in Severity if it in counts)
        scan = self._scans.numbered(number)
        raise OCIError(
            Code.DENIED,
            f"this project refuses pulls of images with vulnerabilities of severity "
            f"{policy.block_at} or worse, and this one has {len(bad)} ({worst})",
            detail={
                "digest": digest,
                "block_at": policy.block_at,
                "vulnerabilities": len(bad),
                "scan": scan.id if scan else None,
            },
        )

    def _verdict(self, number: int, digest: Digest) -> _Verdict:
        """Return the vulnerabilities of an image, each once."""
        key = (number, digest)
        known = self._verdicts.get(key)
        if known is None:
            worst: dict[str, Severity] = {}
            for it in self._scans.findings_in(number, digest):
                if it.id not in worst or it.severity.rank > worst[it.id].rank:
                    worst[it.id] = it.severity
            known = tuple(worst.items())
            self._verdicts[key] = known
            if len(self._verdicts) > _MEMORY_ENTRIES:
                self._verdicts.popitem(last=False)
        return known

    def _is_image(self, manifest: StoredManifest) -> bool:
        if manifest.content is None:  # a large one; artifacts are small
            return True
        known = self._images.get(manifest.digest)
        if known is None:
            try:
                known = images.read(manifest.content).is_image
            except msgspec.MsgspecError:  # of the withdrawn kind
                known = False
            self._images[manifest.digest] = known
            if len(self._images) > _MEMORY_ENTRIES:
                self._images.popitem(last=False)
        return known
