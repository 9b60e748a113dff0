"""`--no-skips`, which CI passes: a test or file that is skipped for a missing package or program is a failure."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ("pytester",)

CONFTEST = (Path(__file__).parent / "conftest.py").read_text("utf-8")
MISSING_IN_A_TEST = """
import pytest

def test_passes(): pass
def test_missing_package(): pytest.importorskip("no_such_package")
@pytest.mark.skipif(True, reason="needs a browser")
def test_missing_program(): pass
def test_kept_back(): pytest.skip("arrays.npz is kept back")
@pytest.mark.xfail(reason="expected")
def test_expected_failure(): assert False
"""
MISSING_IN_A_FILE = """
import pytest

pytest.importorskip("no_such_package")
def test_never_reached(): pass
"""


def test_skips_are_failures_with_the_option_alone(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_in_a_test=MISSING_IN_A_TEST)
    pytester.runpytest_inprocess().assert_outcomes(passed=1, skipped=3, xfailed=1)
    strict = pytester.runpytest_inprocess("--no-skips")
    strict.assert_outcomes(passed=1, failed=1, errors=1, skipped=1, xfailed=1)  # a mark is looked at before the test
    strict.stdout.fnmatch_lines(["*this one says: *needs a browser*"])


def test_a_skipped_file_is_an_error(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_in_a_file=MISSING_IN_A_FILE)
    pytester.runpytest_inprocess().assert_outcomes(skipped=1)
    strict = pytester.runpytest_inprocess("--no-skips")
    assert strict.ret != 0
    strict.assert_outcomes(errors=1)


@pytest.mark.slow
def test_worker_processes_refuse_skips_too(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_in_a_test=MISSING_IN_A_TEST, test_in_a_file=MISSING_IN_A_FILE)
    strict = pytester.runpytest_subprocess("--no-skips", "-n", "1")
    strict.assert_outcomes(passed=1, failed=1, errors=2, skipped=1, xfailed=1)
    strict.stdout.fnmatch_lines(["*could not import 'no_such_package'*"])
