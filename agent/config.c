#include "config.h"
#include "abi.h"
#include "io.h"

#include <stdlib.h>
#include <string.h>

static bool number(const char *text, uint64_t *value) {
    char *end = NULL;
    *value = strtoull(text, &end, 10);
    return *text >= '0' && *text <= '9' && *end == '\0';
}

static bool put_gpu(struct config *config, const char *uuid, const char *share, const char *reserved) {
    if (config->gpus == ACCOUNT_GPUS || strlen(uuid) >= sizeof config->gpu[0].uuid)
        return false;
    strcpy(config->gpu[config->gpus].uuid, uuid);
    unsigned gpu = config->gpus++;
    return reserved && number(share, &config->gpu[gpu].share) && number(reserved, &config->gpu[gpu].reserved);
}

static bool put_node(struct config *config, const char *path) {
    if (config->nodes == NODES || strlen(path) >= sizeof config->node[0])
        return false;
    strcpy(config->node[config->nodes++], path);
    return true;
}

static bool put_uvm(struct config *config, const char *path) {
    if (config->uvm[0] || strlen(path) >= sizeof config->uvm)
        return false;
    strcpy(config->uvm, path);
    return true;
}

static bool take_line(struct config *config, const char *key, const char *first, const char *second,
                      const char *third) {
    uint64_t value = 0;
    if (strcmp(key, "runai-agent") == 0)
        return strcmp(first, "1") == 0;
    if (strcmp(key, "node") == 0)
        return put_node(config, first);
    if (strcmp(key, "uvm") == 0)
        return put_uvm(config, first);
    if (strcmp(key, "params") == 0) {
        bool good = number(first, &value) && value >= PARAMS_SIZE_AT + 8 && value <= PARAMS_MOST;
        config->params_bytes = (size_t)value;
        return good;
    }
    if (strcmp(key, "gpu") == 0)
        return second && put_gpu(config, first, second, third);
    if (strcmp(key, "creator") == 0) {
        bool good = number(first, &value);
        config->creator = (pid_t)value;
        return good;
    }
    return false;
}

bool config_read(int folder, struct config *config) {
    static char text[16384];
    memset(config, 0, sizeof *config);
    if (read_file(folder, "agent.conf", text, sizeof text) <= 0)
        return false;
    char *next = NULL;
    for (char *line = strtok_r(text, "\n", &next); line; line = strtok_r(NULL, "\n", &next)) {
        char *rest = NULL;
        const char *key = strtok_r(line, "\t", &rest), *first = strtok_r(NULL, "\t", &rest);
        const char *second = first ? strtok_r(NULL, "\t", &rest) : NULL;
        if (!first || !take_line(config, key, first, second, second ? strtok_r(NULL, "\t", &rest) : NULL))
            return false;
    }
    return config->creator > 0 && config->params_bytes && config->gpus && config->nodes && config->uvm[0];
}
