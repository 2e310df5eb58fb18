/* The hash table against a plain array, and the limits file, good and bad. usage: tables_test COUNT */
#include "check.h"
#include "cuda/map.h"
#include "share_limits.h"

#include <string.h>

#define KEYS 300

static void test_map(int changes)
{
    struct map map = {0};
    uint64_t expected[KEYS] = {0};
    unsigned seed = 7;
    for (int i = 0; i < changes; i++) {
        unsigned n = (unsigned)rand_r(&seed) % KEYS;
        uint64_t key = ((uint64_t)n + 1) << 21; /* addresses of blocks: their low bits are all the same */
        struct map_entry *entry = map_find(&map, key);
        CHECK((entry != NULL) == (expected[n] != 0));
        CHECK(!entry || (entry->key == key && entry->a == expected[n]));
        if (entry && rand_r(&seed) % 2) {
            map_remove(&map, entry);
            expected[n] = 0;
        } else {
            entry = map_put(&map, key);
            CHECK(entry && (expected[n] || (entry->a == 0 && entry->b == 0)));
            entry->a = expected[n] = (uint64_t)i + 1;
        }
    }
    free(map.entries);
}

static int parse(const char *text)
{
    struct limits limits;
    return limits_parse(&limits, text, strlen(text)) == 0 ? (int)limits.count : -1;
}

static void test_limits(void)
{
    struct limits limits;
    const char *two = "GPU-a 3221225472 551550976\nGPU-b 1 0\n";
    CHECK(limits_parse(&limits, two, strlen(two)) == 0 && limits.count == 2);
    CHECK(limits.gpu[0].bytes == 3221225472 && limits.gpu[0].context == 551550976);
    CHECK(limits_find(&limits, "GPU-b") == 1 && limits_find(&limits, "GPU-c") == -1);
    CHECK(parse("") == -1);
    CHECK(parse("GPU-a 1 0") == -1); /* cut off */
    CHECK(parse("GPU-a 1\n") == -1);
    CHECK(parse("GPU-a  1 0\n") == -1);
    CHECK(parse("GPU-a -1 0\n") == -1);
    CHECK(parse("GPU-a 99999999999999999999 0\n") == -1);
    CHECK(parse(" 1 0\n") == -1);
    CHECK(parse("GPU-a 1 0\n\n") == -1);
    char many[ACCOUNT_GPUS * 16 + 32] = "";
    for (int i = 0; i < ACCOUNT_GPUS; i++)
        strcat(many, "GPU-a 1 0\n");
    CHECK(parse(many) == ACCOUNT_GPUS);
    CHECK(parse(strcat(many, "GPU-a 1 0\n")) == -1);
    char name[128];
    memset(name, 'x', sizeof name);
    strcpy(name + 64, " 1 0\n");
    CHECK(parse(name) == -1);
}

int main(int argc, char **argv)
{
    test_map(argc > 1 ? atoi(argv[1]) : 1000);
    test_limits();
    return 0;
}
