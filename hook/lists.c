#include "lists.h"

#include "cleanup.h"
#include "fail.h"
#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/utsname.h>

#define BYTES 65536

static const char BLANKS[] = " \t\r\f\v";

/* Calls SEE for each word in a file in which SEPARATORS stand between them. */
static void each_word(const struct rootfs *rootfs, const char *file, const char *separators, see_word *see,
                      void *context) {
    static char text[BYTES];
    cleanup_close int fd = image_open(rootfs, file);
    if (fd < 0)
        return;
    ssize_t length = read_up_to(fd, text, sizeof text);
    if (length < 0)
        fail("the image's %s can't be read, %s; look at the image and its volumes", file, why(errno));
    if ((size_t)length == sizeof text)
        fail("the image's %s can't be checked, it is longer than 64 KiB; shorten it", file);
    text[length] = '\0';
    for (ssize_t i = 0; i < length; i++)
        if (!text[i])
            text[i] = '\n';
    char *save = NULL;
    for (char *word = strtok_r(text, separators, &save); word; word = strtok_r(NULL, separators, &save)) {
        word += strspn(word, BLANKS);
        for (size_t end = strlen(word); end > 0 && strchr(BLANKS, word[end - 1]); end--)
            word[end - 1] = '\0';
        if (word[0])
            see(context, file, word);
    }
}

/* The folders of what ldconfig reads. Its `include` lines name ld.so.conf.d in every distribution. */
static void each_configured(const struct rootfs *rootfs, see_word *see, void *context) {
    static const char FOLDER[] = "/etc/ld.so.conf.d";
    each_word(rootfs, "/etc/ld.so.conf", "\n#", see, context);
    cleanup_closedir DIR *folder = rootfs_list(rootfs, FOLDER);
    if (!folder && !rootfs_absent(errno))
        fail("the folder %s can't be listed, %s; look at the image and its volumes", FOLDER, why(errno));
    char path[PATH_MAX];
    for (struct dirent *entry = NULL; folder && (entry = readdir(folder)) != NULL;)
        if (entry->d_name[0] != '.' && snprintf(path, sizeof path, "%s/%s", FOLDER, entry->d_name) < (int)sizeof path)
            each_word(rootfs, path, "\n#", see, context);
}

void lists_each_folder(const struct rootfs *rootfs, see_word *see, void *context) {
    struct utsname system;
    char path[sizeof system.machine + sizeof "/etc/ld-musl-.path"];
    if (uname(&system) == 0 &&
        snprintf(path, sizeof path, "/etc/ld-musl-%s.path", system.machine) < (int)sizeof path)
        each_word(rootfs, path, "\n:", see, context);
    each_configured(rootfs, see, context);
}

void lists_each_preload(const struct rootfs *rootfs, see_word *see, void *context) {
    each_word(rootfs, "/etc/ld.so.preload", " \t\n:", see, context);
}
