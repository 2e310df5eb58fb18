/* The driver's own figures against what was charged: the answer to whatever wasn't made here. */
#ifndef RUNAI_AGENT_RECONCILE_H
#define RUNAI_AGENT_RECONCILE_H

#include "config.h"

#include <stdint.h>

#define RECONCILE_MS 100 /* while there are clients */
#define RECONCILE_SOON_MS 10 /* after a call that was let through, which may have been another when it was made */

/* Charges what the driver gave beyond the account, and ends the process that holds the container above its share. */
void reconcile(const struct config *config);

#endif
