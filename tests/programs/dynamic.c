/* A program that needs a loader and a libc, and nothing else. */
#include <stdio.h>

int main(void)
{
    puts("libc.so.6 at work");
    return 0;
}
