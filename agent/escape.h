/* One call of the container on a device file: looked at, and made in its place where it takes or gives device memory. */
#ifndef RUNAI_AGENT_ESCAPE_H
#define RUNAI_AGENT_ESCAPE_H

#include "config.h"

#include <linux/seccomp.h>
#include <stdbool.h>

/* Answers NOTICE, which came from LISTENER. Whether the call was let through. */
bool escape_answer(const struct config *config, int listener, const struct seccomp_notif *notice);

#endif
