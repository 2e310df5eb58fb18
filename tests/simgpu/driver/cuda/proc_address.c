/* cuGetProcAddress: a base name, the CUDA version that the caller was built for, and flags give one function.
 * proc_table.h is made from cudaTypedefs.h at build time: name, version it exists from, per-thread variant or
 * not, function; sorted by name and version. -Bsymbolic makes the functions this library's own.
 */
#include <string.h>

#include "driver.h"

typedef void function_t(void);

#define ENTRY(name, version, per_thread, function) extern function_t entry_##function __asm__(#function);
#include "proc_table.h"
#undef ENTRY

static const struct entry {
    const char *name;
    int version;
    bool per_thread;
    function_t *function;
} table[] = {
#define ENTRY(name, version, per_thread, function) { #name, version, per_thread, entry_##function },
#include "proc_table.h"
#undef ENTRY
};

/* The newest that isn't newer than the caller; among equals the last, which is the per-thread one. */
static const struct entry *choose(const char *name, int version, bool per_thread, bool *known)
{
    const struct entry *best = NULL;
    *known = false;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const struct entry *entry = &table[i];
        if (strcmp(entry->name, name) != 0)
            continue;
        *known = true;
        if (entry->version > version || (entry->per_thread && !per_thread))
            continue;
        if (!best || entry->per_thread >= best->per_thread)
            best = entry;
    }
    return best;
}

CUresult cuGetProcAddress_v2(const char *symbol, void **function, int version, cuuint64_t flags,
                             CUdriverProcAddressQueryResult *status)
{
    if (!symbol || !function || flags > CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM)
        return CUDA_ERROR_INVALID_VALUE;
    bool known;
    const struct entry *entry =
        choose(symbol, version, flags == CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM, &known);
    *function = entry ? (void *)entry->function : NULL;
    if (status)
        *status = entry   ? CU_GET_PROC_ADDRESS_SUCCESS
                  : known ? CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT
                          : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    return entry ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

CUresult cuGetProcAddress(const char *symbol, void **function, int version, cuuint64_t flags)
{
    return cuGetProcAddress_v2(symbol, function, version, flags, NULL);
}
