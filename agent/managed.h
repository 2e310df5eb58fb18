/* Managed memory, which no ioctl asks for: the kernel places it. libvgpu charges it in the account's page, which is the
 * container's to write; what the kernel has mapped tells of the rest. */
#ifndef RUNAI_AGENT_MANAGED_H
#define RUNAI_AGENT_MANAGED_H

#include <stdint.h>

/* Bytes of managed memory on GPU that living processes have in the account now; and at the last such look. */
uint64_t managed_look(unsigned gpu);
uint64_t managed_in_account(unsigned gpu);

/* Bytes that the processes have mapped beyond what the account has of GPUS GPUs together, as the last looks found it. Of
 * managed memory nobody outside the driver can tell on which GPU it lies, so each is charged with all of this. */
void managed_check_mappings(unsigned gpus);
uint64_t managed_beyond(void);

#endif
