"""``cypd config``: look at the configuration."""

import argparse

from cypd.commands.output import tell
from cypd.composition.metrics import metrics_token
from cypd.config import Config
from cypd.daemon import require_certificates
from cypd.state import require_root


def check(config: Config, options: argparse.Namespace) -> int:
    """Tell whether the configuration can be used; raise ConfigError."""
    root = require_root(config)
    require_certificates(config)
    metrics_token(config)
    if options.json:
        server = config.server
        roles = ("listen", "tls_listen", "metrics_listen")
        tell({**{role: getattr(server, role) for role in roles}, "root": str(root)})
        return 0
    addresses = ", ".join(
        (*config.server.listen, *(f"{it} (TLS)" for it in config.server.tls_listen))
    )
    print(f"The configuration is good. Listens on {addresses}, data in {root}")
    return 0
