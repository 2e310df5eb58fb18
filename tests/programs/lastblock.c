/* Processes that want the last block of the share at the same moment: one of them gets it. usage: lastblock PROCESSES ROUNDS
 *
 * Takes all that there is but one block of 2 MiB; then, in each round, all processes ask for one. Prints a line and ends
 * with 0 when in every round exactly one had it, and all of them were out of memory after. */
#define __CUDA_API_VERSION_INTERNAL /* every version under its own name */
#include <cuda.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define BLOCK ((size_t)2 << 20)

static struct {
    pthread_barrier_t barrier;
    _Atomic int got, wrong;
} *shared;

static void must(int is, const char *what)
{
    if (is)
        return;
    fprintf(stderr, "lastblock: not so: %s\n", what);
    _exit(1);
}

static CUresult take(CUdeviceptr *address)
{
    return cuMemAlloc_v2(address, BLOCK);
}

static void fill(void)
{
    CUdeviceptr last = 0, address;
    while (take(&address) == CUDA_SUCCESS)
        last = address;
    must(last && cuMemFree_v2(last) == CUDA_SUCCESS, "there is one block to give back");
}

static void want(int first, int rounds)
{
    for (int round = 0; round < rounds; round++) {
        CUdeviceptr address, more;
        pthread_barrier_wait(&shared->barrier);
        CUresult result = take(&address);
        if (result == CUDA_SUCCESS)
            atomic_fetch_add(&shared->got, 1);
        else if (result != CUDA_ERROR_OUT_OF_MEMORY)
            atomic_fetch_add(&shared->wrong, 1);
        pthread_barrier_wait(&shared->barrier);
        if (take(&more) != CUDA_ERROR_OUT_OF_MEMORY || (first && atomic_load(&shared->got) != round + 1))
            atomic_fetch_add(&shared->wrong, 1);
        pthread_barrier_wait(&shared->barrier);
        if (result == CUDA_SUCCESS)
            must(cuMemFree_v2(address) == CUDA_SUCCESS, "a block is freed");
    }
}

static void be_one(int first, int rounds)
{
    CUcontext context;
    must(cuInit(0) == CUDA_SUCCESS && cuDevicePrimaryCtxRetain(&context, 0) == CUDA_SUCCESS &&
             cuCtxSetCurrent(context) == CUDA_SUCCESS,
         "there is room for a context each");
    pthread_barrier_wait(&shared->barrier);
    if (first)
        fill();
    want(first, rounds);
    pthread_barrier_wait(&shared->barrier); /* nobody ends before: what it held would be free */
    _exit(0);
}

int main(int argc, char **argv)
{
    int processes = argc > 2 ? atoi(argv[1]) : 4, rounds = argc > 2 ? atoi(argv[2]) : 10, failed = 0, status;
    pthread_barrierattr_t attributes;
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(shared != MAP_FAILED, "there is memory to share");
    pthread_barrierattr_init(&attributes);
    pthread_barrierattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_barrier_init(&shared->barrier, &attributes, (unsigned)processes);
    for (int i = 0; i < processes; i++)
        if (fork() == 0)
            be_one(i == 0, rounds);
    while (wait(&status) > 0)
        failed |= status;
    printf("%d rounds, %d got it, %d wrong\n", rounds, atomic_load(&shared->got), atomic_load(&shared->wrong));
    return failed || atomic_load(&shared->wrong) || atomic_load(&shared->got) != rounds;
}
