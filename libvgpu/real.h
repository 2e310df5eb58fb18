/* The real library behind ours: the address of each of its functions, found when ours is loaded. Compiled once for
 * each of the two libraries: RUNAI_LIBRARY_H names the header that says which (cuda/library.h, nvml/library.h). */
#ifndef RUNAI_REAL_H
#define RUNAI_REAL_H

#include RUNAI_LIBRARY_H

struct real {
#define FUNCTION(policy, name) void *name;
#include FUNCTIONS_H
#undef FUNCTION
};

/* A function that this driver doesn't have points to one that answers MISSING. Hidden, and known to trampolines.S. */
extern struct real libvgpu_real;

/* The real function, with its type. */
#define REAL(name) ((__typeof__(&(name)))libvgpu_real.name)

/* Marks a function that the table has as TAKE. */
#define EXPORT __attribute__((visibility("default")))

#endif
