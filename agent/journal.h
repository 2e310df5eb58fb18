/* agent.log: what the container's owner should know, a sentence a line. */
#ifndef RUNAI_AGENT_JOURNAL_H
#define RUNAI_AGENT_JOURNAL_H

void journal_open(int folder);

/* Appends a line. At most JOURNAL_LINES are written, since a container can cause them. */
void journal(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
