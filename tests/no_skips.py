"""In CI a skipped test fails the run: load with ``pytest -p tests.no_skips``.

At a desk a missing tool skips its tests. Where all tools are installed on purpose, a skip means
that a promise went untested without anybody noticing.
"""

import os

import pytest
from _pytest.terminal import TerminalReporter


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Turn a good run with skips into a failed one."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.exitstatus == pytest.ExitCode.OK and _skipped(reporter):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Name each test that was skipped, and why."""
    if skipped := _skipped(terminalreporter):
        terminalreporter.section("skipped, which CI does not accept", red=True)
        for report in skipped:
            terminalreporter.write_line(f"{report.nodeid}: {_reason(report)}")


def _skipped(reporter: TerminalReporter | None) -> list[pytest.TestReport]:
    if reporter is None or not os.environ.get("CI"):
        return []
    return reporter.stats.get("skipped", [])


def _reason(report: pytest.TestReport) -> str:
    # A skip is reported as the place, the line and the message.
    return report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
