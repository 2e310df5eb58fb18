/* What the runtime starts the program for. STATE is the container's state directory, as a path and open. */
#ifndef RUNAI_STAGES_H
#define RUNAI_STAGES_H

void stage_prestart(const char *path, int state);
void stage_create_container(const char *path, int state);
void stage_poststop(const char *path, int state);

#endif
