"""The shipped configuration of Prometheus and Grafana: real programs read it, real queries run."""

import json
import math
import re
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest

from cypd.config import Config
from cypd.metrics.table import BY_NAME, TABLE
from cypd.oci.digest import Digest
from tests.api.test_scans import environment
from tests.daemon import basic, free_port
from tests.metrics.measured import Measured

CONFIG = Path(__file__).parent.parent.parent / "config"
PROMETHEUS = CONFIG / "prometheus" / "prometheus.yml"
ALERTS = CONFIG / "prometheus" / "alerts.yml"
README = CONFIG / "prometheus" / "README.md"
DASHBOARD = CONFIG / "grafana" / "cypd.json"
LARGE = b"l" * 3_000_000
_HERE = 'job="cypd", instance="here"'


class Case(NamedTuple):
    """Series that let an alert fire after some minutes, and have it clear after more of them."""

    series: Mapping[str, str]
    firing_at: int
    cleared_at: int


# In promtool's notation: "a+bxn" is a value, then n more, each b higher.
CASES = {
    "CypdDown": Case({"up{%s}": "0x5 1x5"}, 4, 8),
    "CypdErrors": Case(
        {
            'cypd_requests_total{%s, status="500"}': "0+60x15 900x20",
            'cypd_requests_total{%s, status="200"}': "0+600x35",
        },
        12,
        30,
    ),
    "CypdDiskLow": Case(
        {"cypd_disk_free_bytes{%s}": "9x15 50x10", "cypd_disk_size_bytes{%s}": "100x30"}, 13, 20
    ),
    "CypdQuotaNearlyFull": Case(
        {
            'cypd_project_used_bytes{%s, project="a"}': "95x15 10x10",
            'cypd_project_quota_bytes{%s, project="a"}': "100x30",
            'cypd_project_used_bytes{%s, project="other"}': "99x30",
            'cypd_project_quota_bytes{%s, project="other"}': "100x30",
        },
        13,
        20,
    ),
    "CypdWriterSlow": Case(
        {
            'cypd_writer_commit_seconds_bucket{%s, le="0.25"}': "0x20 0+600x30",
            'cypd_writer_commit_seconds_bucket{%s, le="1.0"}': "0+600x20 12000+600x30",
            'cypd_writer_commit_seconds_bucket{%s, le="+Inf"}': "0+600x20 12000+600x30",
        },
        18,
        40,
    ),
    "CypdWriterBehind": Case({"cypd_writer_queue{%s}": "2000x10 0x10"}, 8, 15),
    "CypdLoopLag": Case({"cypd_loop_lag_seconds{%s}": "2x10 0.01x10"}, 8, 15),
    "CypdBlobsDamaged": Case(
        {
            "cypd_scrub_damaged_blobs{%s}": "0x2 1x10 0x10",
            "cypd_scrub_missing_blobs{%s}": "0x25",
        },
        5,
        18,
    ),
    "CypdWebhooksStuck": Case({"cypd_webhooks_oldest_seconds{%s}": "2000x20 0x10"}, 18, 25),
    "CypdScansStuck": Case(
        {
            "cypd_scans_queued{%s}": "0x5 3x90",
            'cypd_scans_total{%s, status="succeeded"}': "0+1x10 10x69 11x10",
            'cypd_scans_total{%s, status="failed"}': "2x90",
        },
        75,
        85,
    ),
    "CypdWorkersRestart": Case({"cypd_worker_restarts_total{%s}": "0x2 5x30"}, 5, 25),
    "CypdMetadataNearlyFull": Case(
        {
            "cypd_metadata_map_used_bytes{%s}": "90x25",
            "cypd_metadata_map_size_bytes{%s}": "100x15 200x10",
        },
        13,
        20,
    ),
    "CypdOldReader": Case({"cypd_metadata_oldest_reader_transactions{%s}": "5000x10 0x10"}, 8, 15),
    "CypdDescriptorsLow": Case(
        {
            "process_open_fds{%s}": "1900x10 100x10",
            "process_max_fds{%s}": "1000x30",
            "cypd_workers{%s}": "2x30",
        },
        8,
        15,
    ),
    "CypdCollectionStopped": Case(
        {"cypd_collection_last_timestamp_seconds{%s}": "0x400 24000x60"}, 380, 420
    ),
}


def program(name: str) -> str:
    """Return where a program is; skip the test where it is not installed."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: prometheus)")
    return found


def promtool(*arguments: str) -> None:
    """Run promtool; it must have nothing to complain of."""
    command = [program("promtool"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def queries() -> dict[str, str]:
    """Return every query of every panel of the dashboard, by the panel's title and a letter."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return {
        f"{panel['title']}, {target['refId']}": target["expr"]
        for panel in panels
        for target in panel.get("targets", [])
    }


def metrics_of(expression: str) -> set[str]:
    """Return the metrics that an expression is about."""
    names = re.findall(r"\b(?:cypd|process)_[a-z_]+", expression)
    return {re.sub("_(bucket|count|sum)$", "", it) if it not in BY_NAME else it for it in names}


def test_the_configuration_is_understood() -> None:
    """promtool finds nothing wrong with example and rules; it scrapes where cypd listens."""
    promtool("check", "config", str(PROMETHEUS))
    promtool("check", "rules", str(ALERTS))

    assert f'targets: ["{Config().server.metrics_listen[0]}"]' in PROMETHEUS.read_text()


@pytest.mark.parametrize("alert", CASES)
def test_an_alert_fires_and_clears(tmp_path: Path, alert: str) -> None:
    """promtool sees it fire while things are bad, and be quiet when they are good again."""
    case = CASES[alert]
    expression = f'ALERTS{{alertname="{alert}", alertstate="firing"}}'
    document = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": name % _HERE, "values": values}
                    for name, values in case.series.items()
                ],
                "promql_expr_test": [
                    {
                        "expr": f"count({expression})",
                        "eval_time": f"{case.firing_at}m",
                        "exp_samples": [{"labels": "{}", "value": 1}],
                    },
                    {
                        "expr": f"count({expression})",
                        "eval_time": f"{case.cleared_at}m",
                        "exp_samples": [],
                    },
                ],
            }
        ],
    }
    file = tmp_path / "test.yml"
    file.write_text(json.dumps(document))  # JSON is YAML

    promtool("test", "rules", str(file))


def test_every_alert_is_tested() -> None:
    """An alert without a case above is a failure."""
    assert re.findall(r"(?m)^ *- alert: (\w+)$", ALERTS.read_text()) == [
        *sorted(CASES, key=lambda it: ALERTS.read_text().index(f"alert: {it}\n"))
    ]


def test_alerts_and_panels_ask_for_what_is_told() -> None:
    """Every metric that an expression names stands in the table."""
    rules = ALERTS.read_text()
    for expression in [*queries().values(), *re.findall(r"expr: (.*(?:\n {10}.*)*)", rules)]:
        assert metrics_of(expression) - set(BY_NAME) == set(), expression


def test_every_metric_is_explained() -> None:
    """The table of the README is the table of the source, row by row."""
    rows = [f"| `{it.name}` | {it.kind} | {', '.join(it.labels)} | {it.help} |" for it in TABLE]
    assert [it for it in README.read_text().splitlines() if it.startswith("| `")] == rows


class Prometheus:
    """A Prometheus that scrapes one daemon each second."""

    def __init__(self, directory: Path, target: str) -> None:
        self.port = free_port()
        config = directory / "prometheus.yml"
        text = PROMETHEUS.read_text().replace("15s", "1s").replace("127.0.0.1:5001", target)
        config.write_text(text.replace("alerts.yml", str(ALERTS)))
        self._log = (directory / "prometheus.log").open("wb")
        self._process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={directory / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            stdout=self._log,
            stderr=self._log,
        )

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait(10)
        self._log.close()

    def ask(self, query: str) -> list[Any]:
        """Return the answer to a query; none while it starts."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", f"/api/v1/query?{urlencode({'query': query})}")
            answer = json.loads(connection.getresponse().read())
        except (OSError, ValueError):
            return []
        finally:
            connection.close()
        assert answer["status"] == "success", (query, answer)
        found: list[Any] = answer["data"]["result"]
        return found


class Used(Measured):
    """A daemon that does what registries are for, refuses what they refuse, and fails."""

    def __init__(self, directory: Path) -> None:
        limits = {"CYPD_LIMITS_REQUESTS_PER_CLIENT": "50", "CYPD_LIMITS_BURST": "1"}
        scanning = {
            "CYPD_SCANNING_ENGINE": "trivy",
            "CYPD_SCANNING_TRIVY": str(directory / "trivy"),
        }
        super().__init__(directory, limits | scanning)
        self._directory = directory
        self._count = 0
        self._access = ""

    def use(self) -> None:
        """Do some of all of that, and see that it came so."""
        self._count += 1
        layer = b"%d" % self._count
        self.push_image("library/app", LARGE, layer)
        for reference in (Digest.of(LARGE), Digest.of(layer)):
            assert self.request("GET", f"/v2/library/app/blobs/{reference}").status == 200
        assert self.request("GET", "/v2/library/app/manifests/latest").status == 200
        assert self.request("GET", "/v2/library/app/manifests/none").status == 404
        self._ask_too_much()
        self._leave()

    def scan(self) -> int:
        """Ask for a scan, for which there is no program at first; return the status."""
        if not self._access:
            self.push_image("library/scanned", b"{}")
            account = {"username": self.user, "password": self.password}
            self._access = self._post("auth/login", account)[1]["data"]["access_token"]
        return self._post("scans", {"repository": "library/scanned"})[0]

    def install_scanner(self) -> None:
        """Let scans be done from now on."""
        environment(self._directory)

    def _post(self, path: str, document: Mapping[str, str]) -> tuple[int, Any]:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._access}"}
        body = json.dumps(document).encode()
        answer = self.request("POST", f"/api/v1/{path}", headers=headers, body=body)
        return answer.status, json.loads(answer.body)

    def _ask_too_much(self) -> None:
        """Ask faster than one client may, as another than everything else here."""
        source = ("127.0.0.2", 0)
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30, source_address=source)
        for _ in range(1000):
            connection.request("GET", "/v2/")
            answer = connection.getresponse()
            answer.read()
            if answer.status == 429:
                break
        connection.close()

    def _leave(self) -> None:
        """Begin to send a blob, and hang up."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as client:
            path = f"/v2/library/app/blobs/uploads/?digest={Digest.of(LARGE)}"
            head = f"POST {path} HTTP/1.1\r\nHost: {self.host}\r\nContent-Length: {len(LARGE)}\r\n"
            head += f"Authorization: {basic(self.user, self.password)}\r\n\r\n"
            client.sendall(head.encode() + LARGE[:1000])
            # Not its sending side alone: then it might still read an answer.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[Used, Prometheus]]:
    """A daemon, and a Prometheus that scrapes it."""
    program("prometheus")
    with Used(tmp_path) as daemon:
        prometheus = Prometheus(tmp_path, f"127.0.0.1:{daemon.metrics_port}")
        try:
            yield daemon, prometheus
        finally:
            prometheus.close()


@pytest.mark.timeout(240)
def test_every_panel_has_data(watched: tuple[Used, Prometheus]) -> None:
    """A real Prometheus scrapes a real daemon under traffic, and has numbers for every query.

    Where a query has a zero for what did not happen, it has to be more: all of it happens.
    """
    daemon, prometheus = watched
    left = {
        title: query.replace("$__rate_interval", "15s").replace("$instance", ".*")
        for title, query in queries().items()
    }
    assert len(left) > 50
    deadline = time.monotonic() + 120
    while left:
        assert time.monotonic() < deadline, f"no data: {left}"
        daemon.use()
        fails = any(title.startswith(("Failures", "Share of failures")) for title in left)
        if not fails:
            daemon.install_scanner()
        assert daemon.scan() == (503 if fails else 202)
        time.sleep(0.5)
        left = {title: query for title, query in left.items() if not _has_data(prometheus, query)}

    [up] = prometheus.ask('max_over_time(up{job="cypd"}[1m])')
    assert up["value"][1] == "1"
    # It fails some requests on purpose, and a scan that waits may be the first of those that stick.
    # Others are pending for a moment on a busy machine, CypdDown when a scrape takes too long.
    provoked = "CypdQuotaNearlyFull|CypdErrors|CypdScansStuck"
    busy = "CypdDown|CypdLoopLag|CypdWriterSlow"
    assert prometheus.ask(f'ALERTS{{alertname!~"{provoked}|{busy}"}}') == []


def _has_data(prometheus: Prometheus, query: str) -> bool:
    # A quantile of what did not happen is no number: some endpoints are not used all the time.
    numbers = [float(it["value"][1]) for it in prometheus.ask(query)]
    least = sys.float_info.min if "or vector(0)" in query else -math.inf
    return any(number >= least for number in numbers)
