"""The metrics, over what they tell of."""

import os
from pathlib import Path

from cypd import systemd
from cypd.config import Config, ConfigError
from cypd.metadata.lmdb import LmdbMetadata
from cypd.metrics.metrics import Metrics
from cypd.metrics.state import State


def build_metrics(config: Config, root: Path, metadata: LmdbMetadata) -> Metrics:
    """Return the metrics of a worker, which counts the commits of its store from now on."""
    projects = config.metrics.projects
    state = State(
        metadata.projects,
        metadata.webhooks,
        metadata.figures,
        root,
        named=projects,
        scans=metadata.scans.under_way,
    )
    metrics = Metrics(
        root / "metrics",
        state,
        projects=projects,
        waiting_writes=lambda: metadata.waiting_writes,
    )
    metadata.watch_commits(metrics.saw_commit)
    return metrics


def metrics_token(config: Config) -> str:
    """Return what who asks for the metrics has to show; raise ConfigError where it must be set."""
    token = config.metrics.token or systemd.credential(os.environ, "metrics-token")
    if config.metrics.public and not token:
        raise ConfigError("metrics.public: everybody could read them; set metrics.token")
    return token
