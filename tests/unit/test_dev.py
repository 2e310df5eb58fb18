"""./dev and what it relies on."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

import runai_runtime
from tests.docker import newer

TOP = Path(__file__).parents[2]


def test_help_names_every_command() -> None:
    helped = subprocess.run([TOP / "dev"], stdout=subprocess.PIPE, text=True, check=True).stdout
    commands = re.findall(r"^  (\w+) ", helped, flags=re.MULTILINE)
    assert sorted(commands) == ["bench", "build", "demo", "lint", "package", "soak", "test"]


def test_an_unknown_command_is_refused() -> None:
    done = subprocess.run([TOP / "dev", "tset"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "there is no command 'tset'" in done.stderr


def test_without_root_it_says_so() -> None:
    done = subprocess.run([TOP / "dev", "build"], user=65534, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("dev: run this as root")
    assert done.stderr.count("\n") == 1


def test_the_wheel_is_what_is_tested() -> None:
    assert not Path(runai_runtime.__file__).is_relative_to(TOP / "runai_runtime")


def test_one_wheel_for_every_python_and_for_glibc_2_17() -> None:
    (wheel,) = (TOP / "dist").glob("*.whl")
    assert wheel.name.split("-", 2)[2].startswith("py3-none-manylinux2014_")


def test_the_build_needs_the_same_with_and_without_isolation() -> None:
    pins = re.compile(r'^(?:requires|build) = \[\n((?: +"[^"]+",\n)+)\]', flags=re.MULTILINE)
    isolated, prepared = pins.findall((TOP / "pyproject.toml").read_text())
    assert isolated == prepared


def test_packages_are_pinned() -> None:
    group = (TOP / "pyproject.toml").read_text().partition("[dependency-groups]")[2].partition("[tool")[0]
    loose = [line for line in re.findall(r'^ +"(.+)",$', group, flags=re.MULTILINE) if "==" not in line]
    assert not loose


def test_the_newer_engine_is_where_the_tests_look() -> None:
    assert f"\nnewer={newer.UNPACKED}\n" in (TOP / "dev").read_text()


def test_a_skip_is_a_failure(pytester: pytest.Pytester) -> None:
    pytester.makeconftest((TOP / "tests/conftest.py").read_text())
    pytester.makepyfile(
        """
        import pytest

        def test_skips(): pytest.skip("no reason")

        @pytest.mark.skip(reason="marked")
        def test_marked(): pass

        @pytest.mark.may_skip(reason="no GPU")
        def test_allowed(): pytest.skip("no GPU here")

        @pytest.mark.xfail(reason="known")
        def test_fails(): assert False
        """
    )
    pytester.makeini("[pytest]\nmarkers = may_skip")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-rs")
    result.assert_outcomes(failed=1, errors=1, skipped=1, xfailed=1)
    result.stdout.fnmatch_lines(["*no GPU here*"])


def test_a_skipped_file_is_a_failure(pytester: pytest.Pytester) -> None:
    pytester.makeconftest((TOP / "tests/conftest.py").read_text())
    pytester.makepyfile("import pytest\n\nnothing = pytest.importorskip('no_such_module')\n")
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(errors=1)
