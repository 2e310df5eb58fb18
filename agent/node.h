/* Which device file a file is. */
#ifndef RUNAI_AGENT_NODE_H
#define RUNAI_AGENT_NODE_H

#include <stdbool.h>
#include <sys/stat.h>

/* A real node is told by its number, wherever it lies; one of a simulated GPU by the file. */
static inline bool is_node(const struct stat *file, const struct stat *node) {
    if ((file->st_mode & S_IFMT) != (node->st_mode & S_IFMT))
        return false;
    return S_ISCHR(file->st_mode) ? file->st_rdev == node->st_rdev
                                  : file->st_ino == node->st_ino && file->st_dev == node->st_dev;
}

#endif
