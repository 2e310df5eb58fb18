/* The one way in which a stage ends early. What is said then gets into docker's error message (log.h). */
#ifndef RUNAI_FAIL_H
#define RUNAI_FAIL_H

#include <stdnoreturn.h>

/* Prints `runai: ` and one sentence (WHAT, WHY; WHAT TO DO) and exits 1. The words of the format are ours;
 * what comes in through its arguments may be hostile: control characters are shown as `?`. */
noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* An errno in words. Not strerror: docker turns some of its sentences into exit codes 126 and 127. */
const char *why(int error);

#endif
