/* How the agent gets its listeners: the runtime connects to the socket that the container's specification names, once for
 * the container and once for each exec in it, and sends the descriptor (OCI runtime specification, "seccomp"). runc sends at
 * once. crun connects at create and, for a container with no_new_privs, sends at its start, which may be much later. So
 * nobody waits for it here: a connection is one more thing that the agent watches. */
#ifndef RUNAI_AGENT_HANDOVER_H
#define RUNAI_AGENT_HANDOVER_H

#include <stdbool.h>

/* The next connection of SOCKET; -1. */
int handover_accept(int socket);

/* Takes what CONNECTION has sent. *LISTENER is the listener in it, which the caller closes, or -1. false: the connection has
 * ended. Until then all of the text is taken, since its sender waits for that. */
bool handover_receive(int connection, int *listener);

#endif
