/* What a process keeps to itself, and what it loads. */
#include "cudacheck.h"

#include <dirent.h>
#include <dlfcn.h>
#include <signal.h>
#include <sys/stat.h>

static int descriptors(void)
{
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (readdir(folder))
        count++;
    closedir(folder);
    return count;
}

static int maps(void)
{
    int count = 0, c;
    FILE *file = fopen("/proc/self/maps", "re");
    while ((c = getc(file)) != EOF)
        count += c == '\n';
    fclose(file);
    return count;
}

static void print_handlers(void)
{
    for (int number = 1; number < 65; number++) {
        struct sigaction action;
        if (sigaction(number, NULL, &action) == 0 && action.sa_handler != SIG_DFL)
            printf("handler of %d\n", number);
    }
}

/* Prints what anyone can see of this process; the same with and without libvgpu. */
static void footprint(void)
{
    CUdeviceptr address;
    CUcontext context;
    sigset_t mask;
    IS(cuDevicePrimaryCtxRetain(&context, 0), 0);
    IS(cuCtxSetCurrent(context), 0);
    IS(cuMemAlloc_v2(&address, SHARE * 10), CUDA_ERROR_OUT_OF_MEMORY); /* all that is lazy happens */
    IS(cuMemFree_v2(address = 0), 0);
    int fds = descriptors(), areas = maps();
    for (int i = 0; i < 1000; i++) {
        IS(cuMemAlloc_v2(&address, GRANULE), 0);
        IS(cuMemFree_v2(address), 0);
    }
    printf("descriptors more: %d, maps more: %d\n", descriptors() - fds, maps() > areas + 2);
    print_handlers();
    mode_t old = umask(0);
    printf("umask %o\n", (unsigned)old);
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    for (int number = 1; number < 65; number++)
        if (sigismember(&mask, number) == 1)
            printf("blocked %d\n", number);
    for (char **variable = environ; *variable; variable++)
        if (strncmp(*variable, "LD_", 3) != 0)
            printf("%s\n", *variable);
}

void loaded_again(void)
{
    CUresult (*init)(unsigned), (*retain)(CUcontext *, CUdevice), (*set)(CUcontext), (*alloc)(CUdeviceptr *, size_t);
    CUcontext context;
    CUdeviceptr address;
    for (int i = 0; i < 3; i++) {
        void *library = dlopen("libcuda.so.1", RTLD_NOW);
        CHECK(library);
        *(void **)&init = dlsym(library, "cuInit");
        *(void **)&retain = dlsym(library, "cuDevicePrimaryCtxRetain");
        *(void **)&set = dlsym(library, "cuCtxSetCurrent");
        *(void **)&alloc = dlsym(library, "cuMemAlloc_v2");
        CHECK(init(0) == 0 && retain(&context, 0) == 0 && set(context) == 0 && alloc(&address, 100 * MIB) == 0);
        CHECK(account(0) == CONTEXT + (size_t)(i + 1) * 100 * MIB && given(0) == account(0));
        dlclose(library);
        CHECK(account(0) == CONTEXT + (size_t)(i + 1) * 100 * MIB);
    }
}

const struct test_case process_cases[] = {
    {"footprint", footprint},
    {0},
};
