/* The kernel's side: calls that wait for an answer (seccomp_unotify(2)). */
#ifndef RUNAI_AGENT_NOTIFICATION_H
#define RUNAI_AGENT_NOTIFICATION_H

#include <linux/seccomp.h>
#include <stdbool.h>
#include <stdint.h>

/* Whether FD is a listener; if so it is set up. */
bool notification_accept(int fd);

/* The next call on LISTENER; NULL where none is left. It stays valid until the next one. */
const struct seccomp_notif *notification_receive(int listener);

/* Whether the caller still waits: if so what was read by its pid was its own. */
bool notification_waits(int listener, uint64_t id);

/* Lets the kernel make the call, as the caller's memory reads then. */
void notification_continue(int listener, uint64_t id);

/* Answers in its place: 0, or an errno. false: the caller waits no more and makes the call again, or is gone. */
bool notification_answer(int listener, uint64_t id, int error);

#endif
