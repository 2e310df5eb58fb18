/* The control socket: how root changes a running container's share. */
#ifndef RUNAI_AGENT_CONTROL_H
#define RUNAI_AGENT_CONTROL_H

#include "config.h"

/* Takes one request, a line, from the listening socket SOCKET and answers it:
 *     share GPU BYTES      → "ok USED" (bytes), or "error SENTENCE"
 * GPU counts as in agent.conf. */
void control_serve(const struct config *config, int socket);

#endif
