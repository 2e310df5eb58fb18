/* Memory by the calls that are there to give memory. */
#include "cudaways.h"

/* A row of arrays and of pitched memory: 64 KiB, so that all sizes from 2 MiB on are whole rows. */
#define ROW (64 * KIB)

static CUmemLocation here(void)
{
    return (CUmemLocation){.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device};
}

static CUresult linear(size_t *size)
{
    CUdeviceptr address;
    return TRY(cuMemAlloc_v2, &address, *size);
}

/* Rows that are no multiple of anything, which the driver rounds up. */
static CUresult pitched(size_t *size)
{
    CUdeviceptr address;
    size_t pitch = 0, height = *size / ROW;
    CUresult result = TRY(cuMemAllocPitch_v2, &address, &pitch, ROW - 4, height, 4);
    *size = pitch * height;
    return result;
}

static CUresult managed(size_t *size)
{
    CUdeviceptr address;
    CUresult result = TRY(cuMemAllocManaged, &address, *size, CU_MEM_ATTACH_GLOBAL);
    if (result == CUDA_SUCCESS) /* it comes to the device when the device first touches it */
        result = TRY(cuMemsetD8_v2, address, 1, *size);
    return result == CUDA_SUCCESS ? TRY(cuCtxSynchronize) : result;
}

static CUresult stream_ordered(size_t *size)
{
    CUdeviceptr address;
    return TRY(cuMemAllocAsync, &address, *size, NULL);
}

static CUresult own_pool(size_t *size)
{
    static CUmemoryPool pool;
    CUmemPoolProps wanted = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED, .location = here()};
    CUdeviceptr address;
    CUresult result = pool ? CUDA_SUCCESS : TRY(cuMemPoolCreate, &pool, &wanted);
    return result == CUDA_SUCCESS ? TRY(cuMemAllocFromPoolAsync, &address, *size, pool, NULL) : result;
}

static CUresult created(CUmemGenericAllocationHandle *handle, size_t size)
{
    CUmemAllocationProp wanted = {
        .type = CU_MEM_ALLOCATION_TYPE_PINNED,
        .requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
        .location = here(),
    };
    return TRY(cuMemCreate, handle, size, &wanted, 0);
}

static CUresult handles(size_t *size)
{
    CUmemGenericAllocationHandle handle;
    return created(&handle, *size);
}

static CUresult mapped_handles(size_t *size)
{
    CUmemGenericAllocationHandle handle;
    CUmemAccessDesc access = {.location = here(), .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    CUdeviceptr address = 0;
    CUresult result = created(&handle, *size);
    if (result == CUDA_SUCCESS)
        result = TRY(cuMemAddressReserve, &address, *size, 0, 0, 0);
    if (result == CUDA_SUCCESS)
        result = TRY(cuMemMap, address, *size, 0, handle, 0);
    return result == CUDA_SUCCESS ? TRY(cuMemSetAccess, address, *size, &access, 1) : result;
}

/* Only a descriptor keeps it: its handle is freed. */
static CUresult exported(size_t *size)
{
    CUmemGenericAllocationHandle handle;
    int fd;
    CUresult result = created(&handle, *size);
    if (result != CUDA_SUCCESS)
        return result;
    result = TRY(cuMemExportToShareableHandle, &fd, handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0);
    CUresult released = TRY(cuMemRelease, handle);
    return result == CUDA_SUCCESS ? released : result;
}

static CUresult array(size_t *size)
{
    CUDA_ARRAY_DESCRIPTOR wanted = {
        .Width = ROW / 4, .Height = *size / ROW, .Format = CU_AD_FORMAT_UNSIGNED_INT32, .NumChannels = 1,
    };
    CUarray given;
    return TRY(cuArrayCreate_v2, &given, &wanted);
}

static CUresult array_3d(size_t *size)
{
    CUDA_ARRAY3D_DESCRIPTOR wanted = {
        .Width = 1024, .Height = 512, .Depth = *size / (2 * MIB), .Format = CU_AD_FORMAT_UNSIGNED_INT32, .NumChannels = 1,
    };
    CUarray given;
    return TRY(cuArray3DCreate_v2, &given, &wanted);
}

/* Four levels, each a quarter of the one before. */
static CUresult mipmapped(size_t *size)
{
    CUDA_ARRAY3D_DESCRIPTOR wanted = {
        .Width = ROW / 4, .Height = *size / ROW, .Format = CU_AD_FORMAT_UNSIGNED_INT32, .NumChannels = 1,
    };
    CUmipmappedArray given;
    *size += *size / 4 + *size / 16 + *size / 64;
    return TRY(cuMipmappedArrayCreate, &given, &wanted, 4);
}

/* A graph of one node, which allocates when the graph is launched; nothing frees it. */
static CUresult graph(size_t *size)
{
    static CUstream stream;
    CUDA_MEM_ALLOC_NODE_PARAMS wanted = {
        .poolProps = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED, .location = here()}, .bytesize = *size,
    };
    CUgraph nodes = NULL;
    CUgraphNode node;
    CUgraphExec runs = NULL;
    CUresult result = stream ? CUDA_SUCCESS : TRY(cuStreamCreate, &stream, CU_STREAM_NON_BLOCKING);
    if (result == CUDA_SUCCESS)
        result = TRY(cuGraphCreate, &nodes, 0);
    if (result == CUDA_SUCCESS)
        result = TRY(cuGraphAddMemAllocNode, &node, nodes, NULL, 0, &wanted);
    if (result == CUDA_SUCCESS)
        result = TRY(cuGraphInstantiateWithFlags, &runs, nodes, 0);
    if (result == CUDA_SUCCESS)
        result = TRY(cuGraphLaunch, runs, stream);
    if (result == CUDA_SUCCESS)
        return TRY(cuStreamSynchronize, stream);
    if (runs)
        TRY(cuGraphExecDestroy, runs);
    if (nodes)
        TRY(cuGraphDestroy, nodes);
    return result;
}

const struct way memory_ways[] = {
    {.name = "linear", .take = linear, .largest = 256 * MIB, .smallest = 2 * MIB, .times = MANY},
    {.name = "pitched", .take = pitched, .largest = 256 * MIB, .smallest = 2 * MIB, .times = MANY},
    {.name = "small", .take = linear, .largest = 4 * KIB, .smallest = 4 * KIB, .times = MANY},
    {.name = "pool", .take = stream_ordered, .largest = 256 * MIB, .smallest = 2 * MIB, .times = MANY},
    {.name = "own-pool", .take = own_pool, .largest = 256 * MIB, .smallest = 2 * MIB, .times = MANY},
    {.name = "handles", .take = handles, .largest = 256 * MIB, .smallest = 2 * MIB, .times = MANY},
    {.name = "mapped-handles", .take = mapped_handles, .largest = 256 * MIB, .smallest = 2 * MIB, .times = MANY},
    {.name = "exported", .take = exported, .largest = 256 * MIB, .smallest = 2 * MIB, .times = MANY},
    {.name = "array", .take = array, .largest = 256 * MIB, .smallest = 2 * MIB, .times = MANY},
    {.name = "array-3d", .take = array_3d, .largest = 256 * MIB, .smallest = 2 * MIB, .times = MANY},
    {.name = "mipmap", .take = mipmapped, .largest = 256 * MIB, .smallest = 2 * MIB, .times = MANY},
    {.name = "graph", .take = graph, .largest = 256 * MIB, .smallest = 2 * MIB, .times = MANY},
    {.name = "managed", .take = managed, .largest = 64 * MIB, .smallest = 2 * MIB, .times = MANY},
    {0},
};
