/* Asks with dlsym for functions, as programs do that live with several drivers: `probe NAME…`. A line for each: whether
 * the libraries that are loaded have it, and whether the driver's own library has, asked by its name. `+NAME` calls it,
 * without arguments, and prints what it answers. */
#include <dlfcn.h>
#include <stdio.h>

static const char *shown(const void *address)
{
    return address ? "there" : "NULL";
}

int main(int count, char **names)
{
    void *cuda = dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
    void *nvml = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_GLOBAL);
    if (!cuda || !nvml) {
        puts(dlerror());
        return 1;
    }
    for (int i = 1; i < count; i++) {
        const char *name = names[i][0] == '+' ? names[i] + 1 : names[i];
        void *library = name[0] == 'c' ? cuda : nvml;
        int (*function)(void) = (int (*)(void))dlsym(RTLD_DEFAULT, name);
        printf("%s %s %s", name, shown((void *)function), shown(dlsym(library, name)));
        if (name != names[i] && function)
            printf(" %d", function());
        putchar('\n');
    }
    return 0;
}
