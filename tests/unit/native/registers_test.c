/* Whether a library of ours hands every argument on. usage: registers_test LIBRARY. Compiled with functions.h, which
 * has a line for each function of the driver's: FUNCTION(number, policy, name); the library behind ours answers as
 * answer.h says. A line of output for each fault, and a last one with the number of functions. */
#include "answer.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

enum policy { TAKE, PASS, ASIDE };

static const struct function {
    int number;
    enum policy policy;
    const char *name;
} functions[] = {
#define FUNCTION(number, policy, name) {number, policy, #name},
#include "functions.h"
#undef FUNCTION
};

#define COUNT (sizeof functions / sizeof *functions)

typedef int look_up(const char *, void **, int, unsigned long, int *);

static int fault(const char *name, const char *what)
{
    return printf("%s %s\n", name, what);
}

static void check(const struct function *function, void *library, const char *path, look_up *proc_address)
{
    Dl_info info;
    void *address = dlsym(library, function->name), *found = NULL;
    if (!address || !dladdr(address, &info) || strcmp(info.dli_fname, path) != 0) {
        fault(function->name, address ? "is not ours" : "is not there");
        return;
    }
    if (function->policy != TAKE) {
        long given = ((answer *)address)(ARGUMENTS);
        if (given != answer_of(function->number, ARGUMENTS))
            fault(function->name, "gets other arguments");
    }
    if (!proc_address || proc_address(function->name, &found, 13000, 0, NULL) != 0)
        return;
    if (function->policy == TAKE && found != address)
        fault(function->name, "is the driver's for cuGetProcAddress");
    if (function->policy != TAKE && (!dladdr(found, &info) || strcmp(info.dli_fname, path) == 0))
        fault(function->name, "is ours for cuGetProcAddress");
}

int main(int argc, char **argv)
{
    void *library = argc > 1 ? dlopen(argv[1], RTLD_NOW) : NULL;
    if (!library) {
        puts(argc > 1 ? dlerror() : "which library?");
        return 1;
    }
    look_up *proc_address = (look_up *)dlsym(library, "cuGetProcAddress_v2");
    for (size_t i = 0; i < COUNT; i++)
        check(&functions[i], library, argv[1], proc_address);
    for (int i = 2; i < argc; i++)
        printf("%s %s\n", argv[i], dlsym(library, argv[i]) ? "is there" : "is NULL");
    printf("%zu functions\n", COUNT);
    return 0;
}
