/* Preloaded into a daemon: its disk takes nothing while the file STALL_WHILE exists. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static int later(const char *name, int file) {
    const char *path = getenv("STALL_WHILE");
    struct timespec pause = {0, 50 * 1000 * 1000};
    while (path && access(path, F_OK) == 0)
        nanosleep(&pause, NULL);
    return ((int (*)(int))dlsym(RTLD_NEXT, name))(file);
}

int fsync(int file) { return later("fsync", file); }
int fdatasync(int file) { return later("fdatasync", file); }
