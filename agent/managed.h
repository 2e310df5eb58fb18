/* Managed memory, which no ioctl asks for: the kernel places it. libvgpu charges it in the account's page, which is the
 * container's to write. */
#ifndef RUNAI_AGENT_MANAGED_H
#define RUNAI_AGENT_MANAGED_H

#include <stdint.h>

/* Where the state directory is. The page is looked for when memory is first asked for: it is made after us. */
void managed_set_folder(int folder);

/* Bytes of managed memory on GPU, as libvgpu has them now; and as they were at the last such look. */
uint64_t managed_look(unsigned gpu);
uint64_t managed_bytes(unsigned gpu);

#endif
