"""runc's command line as containerd, podman and people write it."""

from __future__ import annotations

import pytest

from runai_runtime.commandline import CommandLine
from runai_runtime.errors import RefusalError

DOCKER = "--root /run/docker/runtime-runai/moby --log /b/log.json --log-format json"


@pytest.mark.parametrize(
    ("words", "command", "container", "bundle"),
    [
        (f"{DOCKER} create --bundle /b --pid-file /b/init.pid abc", "create", "abc", "/b"),
        (f"{DOCKER} --systemd-cgroup create --bundle=/b abc", "create", "abc", "/b"),
        ("create -b /b --console-socket /s abc", "create", "abc", "/b"),
        ("create abc", "create", "abc", "."),
        ("run --preserve-fds 3 --detach -b /b abc", "run", "abc", "/b"),
        ("-root /r create -bundle /b abc", "create", "abc", "/b"),
        ("--root create state abc", "state", "", "."),
        ("--root=create --debug=true delete create", "delete", "", "."),
        ("state create", "state", "", "."),
        ("--rootless true --criu x create abc", "create", "abc", "."),
        ("create -- abc", "create", "abc", "."),
        ("restore --image-path /i --bundle /b --tcp-established abc", "restore", "abc", "/b"),
        ("checkpoint --leave-running abc", "checkpoint", "abc", "."),
        ("--version", "", "", "."),
        ("--root", "", "", "."),
        ("", "", "", "."),
    ],
)
def test_command_lines(words: str, command: str, container: str, bundle: str) -> None:
    line = CommandLine(words.split())
    assert (line.command, line.container, line.bundle) == (command, container, bundle)


def test_log_and_root() -> None:
    line = CommandLine(f"{DOCKER} create abc".split())
    assert (line.root, line.log) == ("/run/docker/runtime-runai/moby", "/b/log.json")


@pytest.mark.parametrize("words", ["--unheard-of create state", "--unheard-of", "create --unheard-of x abc"])
def test_an_unknown_option_might_hide_the_command(words: str) -> None:
    with pytest.raises(RefusalError, match="unheard-of"):
        CommandLine(words.split())


def test_options_of_commands_that_pass_are_not_looked_at() -> None:
    assert CommandLine(["exec", "--unheard-of", "create"]).command == "exec"
