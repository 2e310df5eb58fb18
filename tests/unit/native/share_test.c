/* Asks for 1 GiB until there is none, and gives it all back, twice. usage: share_test LIBRARY */
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    void *library = argc > 1 ? dlopen(argv[1], RTLD_NOW) : NULL;
    if (!library) {
        puts(argc > 1 ? dlerror() : "which library?");
        return 1;
    }
    int (*alloc)(unsigned long *, unsigned long) = (int (*)(unsigned long *, unsigned long))dlsym(library, "cuMemAlloc_v2");
    int (*release)(unsigned long) = (int (*)(unsigned long))dlsym(library, "cuMemFree_v2");
    for (int round = 0; round < 2; round++) {
        unsigned long address[16];
        int count = 0, result = 0;
        while (count < 16 && (result = alloc(&address[count], 1ul << 30)) == 0)
            count++;
        printf("%d GiB, then %d\n", count, result);
        while (count > 0)
            release(address[--count]);
    }
    return 0;
}
