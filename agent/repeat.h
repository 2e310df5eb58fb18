/* Calls that are made again: a caller that a signal interrupts makes its call anew, and can miss an answer of which the
 * kernel says that it was taken. The last ones are all remembered. */
#ifndef RUNAI_AGENT_REPEAT_H
#define RUNAI_AGENT_REPEAT_H

#include "held.h"

void repeat_note_free(pid_t pid, uint32_t root, uint32_t handle);

/* Whether that free was made already. It is forgotten with that. The driver is asked first: the name may be another
 * object's by now. */
bool repeat_is_free(pid_t pid, uint32_t root, uint32_t handle);

void repeat_note_given(const struct held *held, uint32_t root, uint32_t handle);

/* Whether this very message was answered with HANDLE, which is still there: a message that is made again has the handle
 * in it that it was answered with. */
bool repeat_is_given(const struct held *held, uint32_t root, uint32_t handle);

#endif
