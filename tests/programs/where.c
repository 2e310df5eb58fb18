/* Where the loader finds things: `where NAME…`. A line for each: for a library's name the file that is loaded for it,
 * for a function's the library that has it, or NULL. */
#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <string.h>

static const char *library(const char *name)
{
    struct link_map *map = NULL;
    void *handle = dlopen(name, RTLD_NOW | RTLD_GLOBAL);
    return handle && dlinfo(handle, RTLD_DI_LINKMAP, &map) == 0 ? map->l_name : dlerror();
}

static const char *function(const char *name)
{
    Dl_info info;
    void *address = dlsym(RTLD_DEFAULT, name);
    return address && dladdr(address, &info) ? info.dli_fname : "NULL";
}

int main(int count, char **names)
{
    for (int i = 1; i < count; i++)
        printf("%s %s\n", names[i], strstr(names[i], ".so") ? library(names[i]) : function(names[i]));
    return 0;
}
