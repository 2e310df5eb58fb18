/* Threads that are cancelled (pthread_cancel) end in the next call that can wait, reading a file among them. Around ours:
 * one that ended with a lock held would stop all others, and one with a file open would leave it open. */
#ifndef RUNAI_CANCEL_H
#define RUNAI_CANCEL_H

#include <pthread.h>

/* What is to be given to allow_cancel. */
static inline int forbid_cancel(void)
{
    int before;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    return before;
}

static inline void allow_cancel(int before)
{
    pthread_setcancelstate(before, NULL);
}

#endif
