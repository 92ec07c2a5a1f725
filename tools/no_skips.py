"""A pytest plugin for CI: a skipped test that is not marked gpu makes the run fail.

`python -m pytest -p tools.no_skips`. A skipped test checks nothing, and neither does an expected
failure; both are listed by name. Works with and without xdist.
"""

from __future__ import annotations

import pytest

EXIT_STATUS = 1


class NoSkips:
    """Collects the names of skipped tests, and makes a run with any of them fail."""

    def __init__(self) -> None:
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a skipped test, of any worker."""
        if report.skipped and "gpu" not in report.keywords:
            self.skipped.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a whole file that was skipped in its import."""
        if report.skipped:
            self.skipped.append(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Make a run fail that would have passed."""
        if self.skipped and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = EXIT_STATUS

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the names of skipped tests."""
        for name in self.skipped:
            terminalreporter.write_line(f"skipped, and not marked gpu: {name}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    """Register the plugin's one object."""
    config.pluginmanager.register(NoSkips(), "fovea-no-skips")
