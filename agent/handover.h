/* How the agent gets its listeners: the runtime connects to the socket that the container's specification names, once for
 * the container and once for each exec in it, and sends the descriptor (OCI runtime specification, "seccomp"). */
#ifndef RUNAI_AGENT_HANDOVER_H
#define RUNAI_AGENT_HANDOVER_H

/* The listener that comes with the next connection of SOCKET; -1. */
int handover_listener(int socket);

#endif
