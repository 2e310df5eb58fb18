/* The interpreter of the registered program: `#!/…/runai-launch` is its first line.
 *
 * docker starts the runtime four times for one `docker run`, and only `create` may have to be looked into. Python takes 6
 * to 14 ms to start, so what needs no look goes straight to the low-level runtime from here; all else, and whatever this
 * program isn't sure of, goes to Python with the registered program, which decides (runai_runtime/shim.py). */
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PYTHON "/usr/bin/python3"

/* Before the command; runai_runtime/commandline.py has the same two lists. */
static const char *const VALUES[] = {"root", "log", "log-format", "criu", "rootless", "cgroup-manager"};
static const char *const FLAGS[] = {"debug", "systemd-cgroup", "help", "h", "version", "v"};

static const char *const INSPECTED[] = {"create", "run", "restore", "checkpoint"};

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* Whether TEXT, up to LENGTH, is one of WORDS. */
static bool is_one_of(const char *text, size_t length, const char *const *words, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strlen(words[i]) == length && memcmp(words[i], text, length) == 0)
            return true;
    return false;
}

/* Whether ARGUMENTS are for sure a command that is only passed on. */
static bool is_passed_on(char *const *arguments)
{
    for (; *arguments; arguments++) {
        const char *argument = *arguments;
        if (argument[0] != '-' || !argument[1])
            return !is_one_of(argument, strlen(argument), INSPECTED, COUNT(INSPECTED));
        const char *name = argument + strspn(argument, "-");
        size_t length = strcspn(name, "=");
        if (!length)
            return false; /* "--": rare, and Python knows what it means */
        if (is_one_of(name, length, VALUES, COUNT(VALUES))) {
            if (!name[length] && !*++arguments)
                return true; /* a value is missing: the runtime says so */
        } else if (!is_one_of(name, length, FLAGS, COUNT(FLAGS))) {
            return false;
        }
    }
    return true; /* no command at all */
}

/* The low-level runtime that the registered program names, in a line "# runtime=PATH"; NULL if it names none. */
static const char *runtime_of(const char *program)
{
    static const char mark[] = "\n# runtime=";
    static char text[4096];
    int fd = open(program, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    if (length <= 0)
        return NULL;
    text[length] = '\0';
    char *found = strstr(text, mark);
    char *end = found ? strchr(found + 1, '\n') : NULL;
    if (!end)
        return NULL;
    *end = '\0';
    return found + strlen(mark);
}

/* The kernel calls us with the registered program's path between our name and its arguments. */
int main(int argc, char **argv)
{
    if (argc < 2)
        return 1;
    const char *runtime = is_passed_on(argv + 2) ? runtime_of(argv[1]) : NULL;
    if (runtime) {
        char *name = argv[1];
        argv[1] = (char *)runtime;
        execv(runtime, argv + 1);
        argv[1] = name; /* Python says why it can't be started */
    }
    char **python = calloc((size_t)argc + 3, sizeof *python);
    if (!python)
        return 1;
    python[0] = (char *)PYTHON;
    python[1] = (char *)"-IS";
    memcpy(python + 2, argv + 1, (size_t)argc * sizeof *argv);
    execv(PYTHON, python);
    static const char sentence[] = "runai: " PYTHON " can't be started; install Python\n";
    (void)!write(2, sentence, sizeof sentence - 1);
    return 1;
}
