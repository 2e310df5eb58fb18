/* The share, and what is held against it: what was charged, what was freed and may still be there, what the
 * driver gave without being asked through us, and managed memory. Published in the page that is mounted into the container. */
#ifndef RUNAI_AGENT_SHARE_H
#define RUNAI_AGENT_SHARE_H

#include "config.h"

#include <stdbool.h>
#include <stdint.h>

/* Maps STATE/page and makes it the container's truth. */
bool share_open(int folder, const struct config *config);

/* Whether BYTES more fit on GPU, by what is known. */
bool share_fits(unsigned gpu, uint64_t bytes);

/* The same, with what libvgpu charged meanwhile, and if need be after a look for what nobody has any more. */
bool share_finds(unsigned gpu, uint64_t bytes);

/* All that is charged on GPU, bytes; and without frees that no look came after yet. */
uint64_t share_used(unsigned gpu);
uint64_t share_shown(unsigned gpu);
uint64_t share_limit(unsigned gpu);
void share_set_limit(unsigned gpu, uint64_t bytes);

/* The largest that the share has been. */
uint64_t share_most(unsigned gpu);

/* What the driver gave beyond what was charged. */
void share_set_outside(unsigned gpu, uint64_t bytes);

/* Counts a request that there was no room for. */
void share_note_refusal(unsigned gpu);

/* Brings the page up to date; with PROCESSES the list of processes too. */
void share_publish(bool processes);

#endif
