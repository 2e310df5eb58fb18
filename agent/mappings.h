/* What the container's processes have mapped of /dev/nvidia-uvm: managed memory, which is in no figure of the driver's. */
#ifndef RUNAI_AGENT_MAPPINGS_H
#define RUNAI_AGENT_MAPPINGS_H

#include <stdbool.h>

/* Goes on with a round, in which the `mapped` of each process in the table is brought up to date, and processes that have
 * managed memory without having asked the driver for anything get there. Whether that ended the round: one takes several
 * calls where there is much to read. */
bool mappings_look(void);

#endif
