"""The guide to the installation as a service: its commands are run as they stand there."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.daemon import Daemon, free_port
from tests.test_readme import READMES, ROOT, commands

# Nothing of it stays: /etc and /var/lib are written to a layer in memory, /opt and the state are
# folders of the test. Where systemd is not running, systemctl changes files alone if it is told so.
PLACE = """
set -eu
cd "$1"
memory="$1/memory" && mkdir "$memory" && mount -t tmpfs tmpfs "$memory"
for folder in etc var/lib; do
    mkdir -p "$memory/$folder/upper" "$memory/$folder/work"
    layers="lowerdir=/$folder,upperdir=$memory/$folder/upper,workdir=$memory/$folder/work"
    mount -t overlay -o "$layers" overlay "/$folder"
done
! id cypd >/dev/null 2>&1 || userdel --force cypd
mkdir -p opt /opt && mount --bind opt /opt
export SYSTEMD_OFFLINE=1 PATH=/usr/sbin:/usr/bin:/sbin:/bin
log="$1/guide.log"
sudo() { "$@" </dev/null >>"$log" 2>&1; }
cd "$2"
"""
# What systemd does by cypd.service then.
SERVICE = """
systemd-analyze verify cypd.socket cypd-metrics.socket cypd-tls.socket cypd.service
install --directory --owner=cypd --group=cypd --mode=700 /var/lib/cypd
chown cypd:cypd "$1/state" && mount --bind "$1/state" /var/lib/cypd
cd /
exec setpriv --reuid=cypd --regid=cypd --clear-groups --no-new-privs --bounding-set=-all \\
"""

pytestmark = pytest.mark.timeout(600)


def guide() -> list[str]:
    """Return the ten commands."""
    return [line for line in commands(READMES[0]) if line.startswith("sudo ")]


def unit(name: str) -> list[str]:
    """Return the values of a setting of the service that the guide installs."""
    text = (ROOT / "systemd" / "cypd.service").read_text()
    return re.findall(rf"(?m)^{name}=(.*)$", text)


def test_the_guide_leads_to_a_service(tmp_path: Path) -> None:
    """Its user, its programs and its units are there then, and what the unit starts serves."""
    for program in ("systemctl", "systemd-analyze", "useradd", "setpriv"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian: systemd, passwd, util-linux)")
    if os.geteuid() != 0:
        pytest.skip("installing takes root")
    packages, *install, password = guide()
    daemon = Daemon(tmp_path)
    metrics = f"CYPD_SERVER_METRICS_LISTEN=127.0.0.1:{free_port()}"
    settings = [*unit("Environment"), f"CYPD_SERVER_LISTEN={daemon.host}", metrics]
    start = f"env --ignore-environment {' '.join(settings)} {unit('ExecStart')[0]}"
    # No systemd runs that could start it; SERVICE does.
    script = PLACE + "\n".join(install).replace(" --now", "") + SERVICE + start
    daemon.command = (
        *("unshare", "--mount", "--propagation=private", "sh", "-c", script, "sh"),
        *(str(tmp_path), str(ROOT)),
    )
    daemon.state.mkdir()
    daemon.start(deadline=500)
    try:
        inside = ("nsenter", "--mount", f"--target={daemon.pid}")
        read = (*inside, *password.split()[1:])
        daemon.password = subprocess.check_output(read, text=True).strip()
        ask = (*inside, "env", metrics, "/opt/cypd/bin/cypd", "status", "--once")
        assert "requests " in subprocess.check_output(ask, text=True)
        served = daemon.request("GET", "/v2/")
        status = Path(f"/proc/{daemon.pid}/status").read_text()
    finally:
        daemon.stop()

    assert packages == "sudo apt install --yes python3-venv"
    assert served.status == 200
    assert not re.search(r"(?m)^Uid:.*\t0\b", status)
    log = (tmp_path / "guide.log").read_text()
    for name, target in (
        ("cypd.socket", "sockets"),
        ("cypd-metrics.socket", "sockets"),
        ("cypd.service", "multi-user"),
    ):
        assert f"/etc/systemd/system/{target}.target.wants/{name}" in log
    assert daemon.log.read_text().splitlines()[0].endswith("admin-password")
