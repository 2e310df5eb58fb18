"""Whose processes are in a cgroup: version 2, mounted for the test alone (tests/docker has the engine's)."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.unit.agent.bounded import FLAGS, TOP

CGROUP2 = 'mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec "$@"'

SCRIPT = """
cd /sys/fs/cgroup
top=runai-test-$$ below="$PWD/runai-test-$$/own/an odd: .. name"
mkdir -p "$below" $top/threads/own/below
unshare -m sleep 100 & first=$!
unshare -m sleep 100 & other=$!
unshare -m -p -f --kill-child sleep 100 & outer=$!
sleep 0.3
nsenter -m -t $first sleep 100 & deep=$!
init=$(pgrep -P $outer)
nsenter -p -t $init unshare -m -p -f --kill-child sleep 100 & entered=$!
sleep 0.3
nested=$(pgrep -P $(pgrep -P $entered))
for pid in $first $other $init $nested; do echo $pid > $top/own/cgroup.procs; done
echo $deep > "$below/cgroup.procs"
look() {
    echo "$1 first=$first other=$other deep=$deep init=$init nested=$nested"
    echo "0::$3" > "$STATE/cgroup"
    "$MEMBERS" "$STATE" $2
}
look mounts $first /$top/own
look pids $init /$top/own
look root $first /
look upwards $first /$top/../$top/own
look none $first /$top/none
echo threaded > $top/threads/own/cgroup.type
echo threaded > $top/threads/own/below/cgroup.type
for pid in $first $deep; do echo $pid > $top/threads/cgroup.procs; done
echo $first > $top/threads/own/cgroup.threads
echo $deep > $top/threads/own/below/cgroup.threads
look threads $first /$top/threads/own
echo $$ > $top/own/cgroup.procs
look ours $first /$top/own
echo $$ > cgroup.procs
kill -9 $first $other $deep $outer $entered
wait
for folder in "$below" $top/own $top/threads/own/below $top/threads/own $top/threads $top; do
    until rmdir "$folder"; do sleep 0.1; done
done
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """By what was looked at: which processes were found, by what they are here, and how they were called."""
    folder = tmp_path_factory.mktemp("members")
    sources = [TOP / "tests/unit/agent/members.c", TOP / "hook/io.c"]
    sources += [TOP / f"agent/{name}.c" for name in ("members", "process", "watchdog", "journal")]
    build = ["/usr/bin/gcc", *FLAGS, "-iquote", TOP / "agent", *sources, "-o", folder / "members"]
    subprocess.run(list(map(str, build)), check=True)
    (folder / "state").mkdir()
    script = ["/usr/bin/unshare", "-m", "--propagation=slave", "/bin/sh", "-c", CGROUP2, "sh", "/bin/sh", "-c", SCRIPT]
    variables = {"STATE": str(folder / "state"), "MEMBERS": str(folder / "members"), "ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run(script, env=os.environ | variables, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    found: dict[str, dict[str, str]] = {}
    names: dict[str, str] = {}
    for line in done.stdout.splitlines():
        first, *rest = line.split()
        if "=" in line:
            names = {pid: name for name, pid in (pair.split("=") for pair in rest)}
            found[first] = {}
            last = found[first]
        else:
            last[names[first]] = rest[0]
    return found


def test_those_with_the_mounts_of_the_first_process(answers: dict[str, dict[str, str]]) -> None:
    """The others in the cgroup are another container's for all that anyone knows."""
    expected = {"first": "own", "deep": "own", "other": "other", "init": "other", "nested": "other"}
    assert answers["mounts"] == expected


def test_those_in_a_pid_namespace_of_its_own(answers: dict[str, dict[str, str]]) -> None:
    """Whatever their mounts are, and in namespaces below it as well."""
    expected = {"first": "other", "deep": "other", "other": "other", "init": "own", "nested": "own"}
    assert answers["pids"] == expected


def test_a_threaded_cgroup(answers: dict[str, dict[str, str]]) -> None:
    assert answers["threads"] == {"first": "own", "deep": "own"}


@pytest.mark.parametrize("where", ["root", "upwards", "none", "ours"])
def test_a_cgroup_that_is_no_containers(answers: dict[str, dict[str, str]], where: str) -> None:
    """That of the agent itself is what a container is in that was given none."""
    assert answers[where] == {}
