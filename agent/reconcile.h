/* The driver's own figures against what was charged: the answer to whatever wasn't made here. */
#ifndef RUNAI_AGENT_RECONCILE_H
#define RUNAI_AGENT_RECONCILE_H

#include "config.h"

#include <stdint.h>

#define RECONCILE_MS 100

/* Charges what the driver gave beyond the account, and ends the process that holds the container above its share. Called
 * every RECONCILE_MS while there are clients. */
void reconcile(const struct config *config);

#endif
