/* What the agent may do on the host. */
#ifndef RUNAI_AGENT_PRIVILEGE_H
#define RUNAI_AGENT_PRIVILEGE_H

#include <stdbool.h>

/* Keeps CAP_SYS_PTRACE (the callers' memory and descriptors), CAP_DAC_OVERRIDE (/proc/PID/mem of other users' processes),
 * CAP_CHECKPOINT_RESTORE (the files in /proc/PID/map_files) and CAP_KILL, for good. The driver asks for the capabilities of the task that makes an ioctl: with CAP_SYS_ADMIN the
 * agent would lend a container access to the raw framebuffer. */
bool privilege_drop(void);

#endif
