/* The low-level runtime's log file, from which containerd takes the sentence that a person is shown. runc writes a
 * hook's stderr into it; crun writes only that the hook failed. */
#ifndef RUNAI_LOG_H
#define RUNAI_LOG_H

/* Remembers the log whose path the shim noted down in the container's state directory. None is fine. */
void log_remember(int state);

/* Puts a log that ends with SENTENCE in the place of the one that the runtime has open, with what that one holds: what
 * the runtime then writes about the failed hook goes to the old one. Where that can't be done, nothing happens.
 * SENTENCE has no control characters. */
void log_replace(const char *sentence);

#endif
