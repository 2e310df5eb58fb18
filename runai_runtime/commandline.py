"""The command line of an OCI runtime, as runc and crun have it: options, the command, its options, the container.

Both take an option as `--name value`, `--name=value` or with one dash. Which options take a value has to be known: a
value called "create" is not the command.
"""

from runai_runtime.errors import RefusalError, quoted

GLOBAL_VALUES = frozenset({"root", "log", "log-format", "criu", "rootless", "cgroup-manager"})
GLOBAL_FLAGS = frozenset({"debug", "systemd-cgroup", "help", "h", "version", "v"})

# The options of the commands that are looked into: create, run, restore and checkpoint.
COMMAND_VALUES = frozenset(
    {
        *("bundle", "b", "config", "f", "console-socket", "pid-file", "preserve-fds"),
        *("image-path", "work-path", "parent-path", "status-fd", "page-server", "empty-ns", "manage-cgroups-mode"),
        *("lsm-profile", "lsm-mount-context", "criu"),
    },
)
COMMAND_FLAGS = frozenset(
    {
        *("no-pivot", "no-new-keyring", "no-subreaper", "detach", "d", "keep", "help", "h"),
        *("tcp-established", "ext-unix-sk", "shell-job", "file-locks", "auto-dedup", "lazy-pages", "leave-running"),
        *("pre-dump", "tcp-skip-in-flight", "link-remap"),
    },
)

INSPECTED = frozenset({"create", "run", "restore", "checkpoint"})


class CommandLine:
    """What matters of one invocation. An option that wasn't given is ""."""

    __slots__ = ("bundle", "command", "container", "log", "root")

    def __init__(self, arguments: list[str]) -> None:
        """Raise RefusalError for an option that isn't known: it might hide the command."""
        options, rest = split_options(arguments, GLOBAL_VALUES, GLOBAL_FLAGS)
        self.root = options.get("root", "")
        self.log = options.get("log", "")
        self.command = rest[0] if rest else ""
        self.container = ""
        self.bundle = "."
        if self.command in INSPECTED:
            options, rest = split_options(rest[1:], COMMAND_VALUES, COMMAND_FLAGS)
            self.bundle = options.get("bundle", options.get("b", "."))
            self.container = rest[0] if rest else ""


def split_options(
    arguments: list[str],
    values: frozenset[str],
    flags: frozenset[str],
) -> tuple[dict[str, str], list[str]]:
    """The options at the front of ARGUMENTS, and what follows them."""
    options: dict[str, str] = {}
    at = 0
    while at < len(arguments):
        argument = arguments[at]
        if argument == "--":
            return options, arguments[at + 1 :]
        if not argument.startswith("-") or argument == "-":
            break
        name, equals, value = argument.lstrip("-").partition("=")
        at += 1
        if name in values and not equals:
            value = arguments[at] if at < len(arguments) else ""
            at += 1
        elif name not in values and name not in flags:
            raise RefusalError(
                f"the runtime was started with the option {quoted(argument)}, which runai-runtime doesn't know, so it "
                "can't tell which container this is about; use a version of runai-runtime that knows it",
            )
        options[name] = value
    return options, arguments[at:]
