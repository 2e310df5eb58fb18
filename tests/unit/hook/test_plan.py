"""The plan that the shim hands over: each fault in it is refused, and so is what it names and is not there."""

from __future__ import annotations

import json
import os

import pytest

from tests.unit.hook.container import Container, check_refused


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "version 1"),
        ("runai-plan\t2\nrootfs\t/r\n", "version 1"),
        ("runai-plan\t1\n", "names no rootfs"),
        ("runai-plan\t1\nrootfs\t/r\nrootfs\t/s\n", "twice"),
        ("runai-plan\t1\nrootfs\tr\n", "no absolute path"),
        ("runai-plan\t1\nrootfs\t/r\nours\tlibcuda.so.1\n", "too few or too many fields"),
        ("runai-plan\t1\nrootfs\t/r\nours\tlibcuda.so.1\t/a\t/b\n", "too few or too many fields"),
        ("runai-plan\t1\nrootfs\t/r\nours\tlibcuda.so.1\t/a\t/b\t/c\t/d\n", "unknown kind"),
        ("runai-plan\t1\nrootfs\t/r\nours\t../libcuda.so.1\t/a\n", "wrong form"),
        ("runai-plan\t1\nrootfs\t/r\nours\t..\t/a\n", "wrong form"),
        ("runai-plan\t1\nrootfs\t/r\nlibrary\t\t/a\n", "wrong form"),
        ("runai-plan\t1\nrootfs\t/r\nprogram\tusr/bin/x\t/a\n", "wrong form"),
        ("runai-plan\t1\nrootfs\t/r\nreal\tlibcuda.so.1\ta\n", "no absolute path"),
        ("runai-plan\t1\nrootfs\t/r\nimage-real\tlibcuda.so.1\t/a\n", "too few or too many fields"),
        ("runai-plan\t1\nrootfs\t/r\nimage-real\tlibcuda.so.1\ta\t0:0:0:0:0.0\n", "no absolute path"),
        ("runai-plan\t1\nrootfs\t/r\nimage-real\t/libcuda.so.1\t/a\t0:0:0:0:0.0\n", "wrong form"),
        ("runai-plan\t1\nrootfs\t/r\nsomething\tx\n", "unknown kind"),
        ("runai-plan\t1\nrootfs\t/r\n\n", "unknown kind"),
        ("runai-plan\t1\nrootfs\t/r\nsearch\t/x", "cut off"),
        ("runai-plan\t1\nrootfs\t/r\0\n", "zero byte"),
        ("runai-plan\t1\nrootfs\t/r\n" + "search\t/x\n" * 1025, "too many lines"),
        ("runai-plan\t1\nrootfs\t/" + "r" * (1 << 20) + "\n", "too long"),
    ],
)
def test_plan_that_is_refused(debian: Container, text: str, words: str) -> None:
    (debian.state / "plan").write_text(text)
    check_refused(debian.stage("prestart", json.dumps({"pid": os.getpid()})), words)
    check_refused(debian.create(), words)


def test_plan_is_missing(debian: Container) -> None:
    (debian.state / "plan").unlink()
    check_refused(debian.stage("prestart", json.dumps({"pid": os.getpid()})), "it does not exist")
    check_refused(debian.create(), "it does not exist")


def test_root_is_missing(debian: Container) -> None:
    debian.write_plan(lines=[["runai-plan", "1"], ["rootfs", str(debian.base / "gone")]])
    check_refused(debian.create(), "gone can't be opened")


def test_source_goes_between_the_stages(debian: Container) -> None:
    debian.ours["libnvidia-ml.so.1"].unlink()
    check_refused(debian.create(), "ours-libnvidia-ml.so.1")
