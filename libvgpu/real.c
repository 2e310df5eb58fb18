#include "real.h"

#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

struct real libvgpu_real;

/* One string after the other, in the order of struct real: a table of pointers would cost a relocation each. */
static const char names[] =
#define FUNCTION(policy, name) #name "\0"
#include FUNCTIONS_H
#undef FUNCTION
    ;

static int missing(void)
{
    return MISSING;
}

/* The library is there already, as a dependency of ours by this path; RTLD_NOLOAD only asks for it. The order of
 * constructors lets nothing that links with us run before this. */
__attribute__((constructor)) static void find_real_functions(void)
{
    void *library = dlopen(REAL_PATH, RTLD_LAZY | RTLD_NOLOAD);
    void **slot = (void **)&libvgpu_real;
    for (const char *name = names; *name; name += strlen(name) + 1) {
        void *found = library ? dlsym(library, name) : NULL;
        *slot++ = found ? found : (void *)missing;
    }
}
