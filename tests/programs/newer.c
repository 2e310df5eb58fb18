/* A program for a newer driver than our table knows: it needs a function by name, from libcuda.so.1. */
#include <stdio.h>

int cuMemBrandNewAlloc(void);

int main(void)
{
    printf("cuMemBrandNewAlloc %d\n", cuMemBrandNewAlloc());
    return 0;
}
