/* runai-hook STAGE STATE: what runc and crun start as OCI hooks of a container that has a share. The container's state
 * directory is STATE, the OCI state comes on stdin (docs/architecture.md). */
#include "cleanup.h"
#include "fail.h"
#include "log.h"
#include "stages.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct stage {
    const char *name;
    void (*run)(const char *path, int state);
    bool is_start; /* a failure is the container's; poststop may also be done twice */
} STAGES[] = {
    {"prestart", stage_prestart, true},
    {"createContainer", stage_create_container, true},
    {"poststop", stage_poststop, false},
};

static const struct stage *find_stage(const char *name) {
    for (size_t i = 0; i < sizeof STAGES / sizeof *STAGES; i++)
        if (strcmp(STAGES[i].name, name) == 0)
            return &STAGES[i];
    return NULL;
}

/* The shim puts this hook in where NVIDIA's runtime edits the container before it is prepared; the second stage, which
 * prepares it, takes it out again. Here it never came to that. */
static void guard(const char *folder) {
    fail("the container's share can't be kept, NVIDIA's runtime didn't start the low-level runtime through %s; in its "
         "config.toml name the runtimes without their folders, as in runtimes = [\"runc\"], and run \"runai-ctl "
         "configure\" again", folder);
}

/* A volume on a dead server must not hang the engine. Not by the hook's "timeout" in config.json: crun 1.8 waits that long
 * for a hook that ended before it began to wait (SIGCHLD was gone), and refuses the container then. */
#ifndef HOOK_SECONDS
#define HOOK_SECONDS 30
#endif

/* fail() may be called here: there is one thread, and nothing in it allocates or takes a stream's lock. */
static void too_late(int number) {
    (void)number;
    fail("the hook has taken more than %d seconds; see whether the file systems of the image and the volumes answer, and "
         "start the container again", HOOK_SECONDS);
}

static void end_in_time(void) {
    struct sigaction action = {.sa_handler = too_late};
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    sigaction(SIGALRM, &action, NULL);
    sigprocmask(SIG_UNBLOCK, &set, NULL); /* a runtime's mask is inherited */
    alarm(HOOK_SECONDS);
}

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "guard") == 0)
        guard(argv[2]);
    const struct stage *stage = argc == 3 ? find_stage(argv[1]) : NULL;
    if (!stage || argv[2][0] != '/')
        fail("the hook was started in a way it doesn't know, it takes a stage and a state directory; run "
             "\"runai-ctl configure\" again");
    end_in_time();
    (void)umask(022);
    cleanup_close int state = open(argv[2], O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (state < 0 && errno == ENOENT && !stage->is_start)
        return 0;
    if (state < 0)
        fail("the state directory %s can't be opened, %s; start the container again", argv[2], why(errno));
    if (stage->is_start)
        log_remember(state);
    stage->run(argv[2], state);
    return 0;
}
