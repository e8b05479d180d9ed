"""A pytest plugin that says last what was skipped and how to have it run. On CI a run that skips anything fails.

A reason is a sentence: what is missing, a colon, and how to have it.
"""

import os
from collections import Counter

import pytest

FAILED_BY_SKIPS = "On CI nothing may be skipped, so this run has failed: install what is missing, or delete the tests."


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reasons = Counter(map(_reason, terminalreporter.stats.get("skipped", ())))
    if not reasons:
        return
    terminalreporter.section("skipped, and how to have it run")
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count} skipped. {reason}")
    if _on_ci():
        terminalreporter.write_line(FAILED_BY_SKIPS, red=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")  # which one who works for xdist has not
    if reporter and reporter.stats.get("skipped") and _on_ci() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    told = report.longrepr[2] if isinstance(report.longrepr, tuple | list) else str(report.longrepr)
    return told.removeprefix("Skipped: ").strip().partition("\n")[0] or "Nobody said why."


def _on_ci() -> bool:
    return os.environ.get("CI", "").lower() not in ("", "0", "false")
