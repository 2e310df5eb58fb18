/* libvgpu's account against what the driver really gave, after every call. usage: cudacheck CASE
 *
 * Compiled for the tests of libvgpu alone: RUNAI_DIR is where its limits, account and real libraries are. The host has
 * two GPUs: the first with a share of 1 GiB, the second with 512 MiB or, in some cases, none. Nobody else uses them. */
#include "cudacheck.h"

static const struct test_case *const tables[] = {
    memory_cases, context_cases, pool_cases, vmm_cases, thread_cases, process_cases,
};

int main(int argc, char **argv)
{
    (void)argc;
    if (argv[2])
        rounds = atoi(argv[2]);
    if (strcmp(argv[1], "footprint") != 0)
        look_at_the_truth();
    if (strcmp(argv[1], "loaded_again") == 0) {
        loaded_again();
        return 0;
    }
    IS(cuInit(0), 0);
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        for (const struct test_case *one = tables[i]; one->name; one++)
            if (strcmp(one->name, argv[1]) == 0) {
                one->run();
                return 0;
            }
    return 2;
}
