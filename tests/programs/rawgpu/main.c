/* A program that asks the driver for memory by ioctls alone: static, no library of the driver's, so nothing that lies
 * in the container can be between. usage: rawgpu [-d FOLDER] [-g INDEX] [-u UUID] [-w] SUBCOMMAND [ARGUMENT...]
 *
 * A subcommand prints one line. The exit status is 0 where the calls could be made, however they were answered.
 */
#include "rawgpu.h"

static const struct subcommand *const tables[] = {form_commands, attack_commands, sharing_commands, load_commands,
                                                 account_commands, context_commands, managed_commands};

static void usage(void)
{
    fprintf(stderr, "usage: rawgpu [-d FOLDER] [-g INDEX] [-u UUID] [-w] SUBCOMMAND [ARGUMENT...]\n");
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        for (const struct subcommand *one = tables[i]; one->name; one++)
            fprintf(stderr, "  %s %s\n", one->name, one->usage);
    exit(2);
}

int main(int argc, char **argv)
{
    bool wait = false;
    int option;
    while ((option = getopt(argc, argv, "+d:g:u:w")) != -1)
        if (option == 'd')
            node_folder = optarg;
        else if (option == 'g')
            gpu_index = (unsigned)number(optarg);
        else if (option == 'u')
            gpu_uuid = optarg;
        else if (option == 'w')
            wait = true;
        else
            usage();
    if (optind == argc)
        usage();
    char **arguments = argv + optind + 1;
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        for (const struct subcommand *one = tables[i]; one->name; one++)
            if (strcmp(one->name, argv[optind]) == 0 && argc - optind - 1 >= one->arguments) {
                one->run(arguments);
                if (wait)
                    wait_for_input();
                return 0;
            }
    usage();
}
