"""The state folder."""

from pathlib import Path

from cypd.config import Config, ConfigError


def require_root(config: Config) -> Path:
    """Return the state folder, made if need be; raise ConfigError if it can't be used."""
    root = Path(config.storage.root).absolute()
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = root / ".probe"
        probe.touch(mode=0o600)
        probe.unlink(missing_ok=True)  # several processes may be at it
    except OSError as error:
        raise ConfigError(f"storage.root: {root}: {error.strerror}") from None
    return root
