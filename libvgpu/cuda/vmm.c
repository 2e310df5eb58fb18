/* Physical memory by handle: cuMemCreate, cuMemMap and their opposites.
 *
 * The driver keeps the memory while a handle or a mapping refers to it, so the account does too: both are counted,
 * and the last one gone gives it back. Memory that was imported has no entry here: it is charged to the process
 * that made it. Beside an agent nothing is noted. */
#include "agent_view.h"
#include "cuda/charge.h"

#include <stdlib.h>

struct physical {
    struct charge charge;
    uint64_t references; /* of handles and mappings */
};

static uint64_t key_of(CUmemGenericAllocationHandle handle)
{
    return handle + 1; /* the map has no key 0 */
}

static struct physical *physical_of(const struct map_entry *entry)
{
    return (struct physical *)(uintptr_t)entry->a;
}

static void drop(struct state *state, struct physical *physical)
{
    if (--physical->references)
        return;
    charge_cancel(state, &physical->charge);
    free(physical);
}

/* One more reference of HANDLE to PHYSICAL. There is room in the map. */
static void add_handle(struct state *state, CUmemGenericAllocationHandle handle, struct physical *physical)
{
    struct map_entry *entry = map_put(&state->handles, key_of(handle));
    entry->a = (uintptr_t)physical;
    entry->b++;
    physical->references++;
}

static bool keep(const struct charge *charge, CUmemGenericAllocationHandle handle)
{
    struct physical *physical = malloc(sizeof *physical);
    if (!physical)
        return false;
    *physical = (struct physical){.charge = *charge};
    struct state *state = state_lock();
    bool room = map_make_room(&state->handles, 1);
    if (room)
        add_handle(state, handle, physical);
    state_unlock(state);
    if (!room)
        free(physical);
    return room;
}

static void cancel(struct charge *charge)
{
    struct state *state = charge->gpu == NO_GPU ? NULL : state_lock();
    if (!state)
        return;
    charge_cancel(state, charge);
    state_unlock(state);
}

EXPORT CUresult cuMemCreate(CUmemGenericAllocationHandle *handle, size_t bytes, const CUmemAllocationProp *prop,
                            unsigned long long flags)
{
    if (agent_view() || !prop || prop->location.type != CU_MEM_LOCATION_TYPE_DEVICE)
        return REAL(cuMemCreate)(handle, bytes, prop, flags); /* the agent's to bound, or the host's memory */
    struct charge charge;
    CUresult result = charge_device(&charge, prop->location.id, granules(bytes));
    if (result != CUDA_SUCCESS)
        return result;
    result = REAL(cuMemCreate)(handle, bytes, prop, flags);
    if (result == CUDA_SUCCESS && keep(&charge, *handle))
        return CUDA_SUCCESS;
    if (result == CUDA_SUCCESS) {
        REAL(cuMemRelease)(*handle);
        result = CUDA_ERROR_OUT_OF_MEMORY;
    }
    cancel(&charge);
    return result;
}

/* The entry is taken out before the driver may give its number to another allocation, and put back if it refused. */
EXPORT CUresult cuMemRelease(CUmemGenericAllocationHandle handle)
{
    struct physical *physical = NULL;
    struct state *state = agent_view() ? NULL : state_lock();
    struct map_entry *entry = state ? map_find(&state->handles, key_of(handle)) : NULL;
    if (entry) {
        physical = physical_of(entry);
        if (--entry->b == 0)
            map_remove(&state->handles, entry);
    }
    if (state)
        state_unlock(state);
    CUresult result = REAL(cuMemRelease)(handle);
    if (!physical)
        return result;
    state = state_lock();
    if (result != CUDA_SUCCESS && map_make_room(&state->handles, 1)) {
        add_handle(state, handle, physical);
        physical->references--;
    } else {
        drop(state, physical);
    }
    state_unlock(state);
    return result;
}

EXPORT CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *handle, void *address)
{
    CUresult result = REAL(cuMemRetainAllocationHandle)(handle, address);
    struct state *state = result == CUDA_SUCCESS && !agent_view() ? state_lock() : NULL;
    if (!state)
        return result;
    /* ADDRESS may lie anywhere in a mapping; mappings are few, and this call is rare. */
    for (size_t i = 0; i < state->mappings.capacity; i++) {
        const struct map_entry *mapping = &state->mappings.entries[i];
        if (mapping->key && (uintptr_t)address - mapping->key < mapping->b && map_make_room(&state->handles, 1)) {
            add_handle(state, *handle, physical_of(mapping));
            break;
        }
    }
    state_unlock(state);
    return result;
}

static void forget_mapping(struct state *state, struct map_entry *mapping)
{
    struct physical *physical = physical_of(mapping);
    map_remove(&state->mappings, mapping);
    drop(state, physical);
}

EXPORT CUresult cuMemMap(CUdeviceptr address, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle,
                         unsigned long long flags)
{
    struct state *state = agent_view() ? NULL : state_lock();
    struct map_entry *entry = state ? map_find(&state->handles, key_of(handle)) : NULL;
    struct physical *physical = entry ? physical_of(entry) : NULL;
    if (physical)
        physical->references++; /* the handle may be released before this is noted */
    if (state)
        state_unlock(state);
    CUresult result = REAL(cuMemMap)(address, bytes, offset, handle, flags);
    if (!physical)
        return result;
    state = state_lock();
    struct map_entry *stale = result == CUDA_SUCCESS ? map_find(&state->mappings, address) : NULL;
    if (stale)
        forget_mapping(state, stale); /* one that another thread is about to forget */
    struct map_entry *mapping = result == CUDA_SUCCESS ? map_put(&state->mappings, address) : NULL;
    if (mapping)
        *mapping = (struct map_entry){address, (uintptr_t)physical, bytes, state_tick(state)};
    else if (result != CUDA_SUCCESS)
        drop(state, physical); /* else: mapped, but not noted for want of memory; it stays charged */
    state_unlock(state);
    return result;
}

/* A range may hold several mappings, each of which begins at a multiple of the granule. */
EXPORT CUresult cuMemUnmap(CUdeviceptr address, size_t bytes)
{
    if (agent_view())
        return REAL(cuMemUnmap)(address, bytes);
    uint64_t before = state_now();
    CUresult result = REAL(cuMemUnmap)(address, bytes);
    struct state *state = result == CUDA_SUCCESS ? state_lock() : NULL;
    if (!state)
        return result;
    for (uint64_t at = address; at < address + bytes;) {
        struct map_entry *mapping = map_find(&state->mappings, at);
        at += mapping ? mapping->b : GRANULE;
        if (mapping && mapping->when < before)
            forget_mapping(state, mapping);
    }
    state_unlock(state);
    return result;
}
