/* What the container's processes have mapped of /dev/nvidia-uvm, as the kernel says: managed memory, whoever asked for it.
 * It is in no figure of the driver's. */
#ifndef RUNAI_AGENT_MAPPINGS_H
#define RUNAI_AGENT_MAPPINGS_H

#include "config.h"

#include <stdbool.h>

/* Which file nvidia-uvm is. */
void mappings_find_node(const struct config *config);

/* Goes on with a round over the processes, in each of which `mapped` is brought up to date. Whether that ended the round:
 * one takes several calls where there is much to read. */
bool mappings_look(void);

#endif
