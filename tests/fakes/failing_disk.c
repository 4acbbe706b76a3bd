/* A disk whose k-th write or sync fails: loaded before libc's own calls, for files below one folder.
 * `failing_disk(k, calls, error)` arms it (k = 0: it works), `failing_disk_count()` says how many calls there were. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_long count, first, last;
static atomic_int error_number;

void failing_disk(long at, long calls, int error) {
    atomic_store(&count, 0);
    error_number = error;
    first = at;
    last = at + calls - 1;
}

long failing_disk_count(void) { return atomic_load(&count); }

static int is_watched(int descriptor) {
    const char *folder = getenv("FAILING_DISK");
    char link[64], path[4096];
    if (!folder) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return strncmp(path, folder, strlen(folder)) == 0;
}

static int fails(int descriptor) {
    if (!is_watched(descriptor)) return 0;
    long number = atomic_fetch_add(&count, 1) + 1;
    if (first == 0 || number < first || number > last) return 0;
    errno = error_number;
    return 1;
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

ssize_t write(int d, const void *data, size_t size) {
    REAL(write);
    return fails(d) ? -1 : real(d, data, size);
}

ssize_t pwrite(int d, const void *data, size_t size, off_t at) {
    REAL(pwrite);
    return fails(d) ? -1 : real(d, data, size, at);
}

ssize_t pwrite64(int d, const void *data, size_t size, off64_t at) {
    REAL(pwrite64);
    return fails(d) ? -1 : real(d, data, size, at);
}

int fsync(int d) {
    REAL(fsync);
    return fails(d) ? -1 : real(d);
}

int fdatasync(int d) {
    REAL(fdatasync);
    return fails(d) ? -1 : real(d);
}

int ftruncate(int d, off_t size) {
    REAL(ftruncate);
    return fails(d) ? -1 : real(d, size);
}

int ftruncate64(int d, off64_t size) {
    REAL(ftruncate64);
    return fails(d) ? -1 : real(d, size);
}

int posix_fallocate(int d, off_t at, off_t size) {
    REAL(posix_fallocate);
    return fails(d) ? errno : real(d, at, size);
}

int posix_fallocate64(int d, off64_t at, off64_t size) {
    REAL(posix_fallocate64);
    return fails(d) ? errno : real(d, at, size);
}
