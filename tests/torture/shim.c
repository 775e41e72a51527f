/* Counts the calls that change files below one folder, and makes the k-th of them fail or kill the process.
 *
 * Loaded by LD_PRELOAD into a Python that is warm already; `fault_arm` begins the counting. The counter lies in a
 * file that is mapped by all processes of a command, so that the k-th call is the k-th of all of them together.
 * Files written by the C library's own streams (fwrite) do not come through here; Python, Rust and C++ do.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* What a call does, for faults that only some calls can have. */
enum { GROWS = 1, NAMES = 2, REMOVES = 4, SYNCS = 8 };

/* Of all processes: how many calls there were, and of which kind each was, as far as there is room. */
enum { CALLS = 8192 };
static struct { _Atomic long count; char kinds[CALLS]; } *counter;
static char root[PATH_MAX];      /* with a slash at its end */
static long fault_at;            /* 0: only count */
static int fault_code;           /* an errno, or minus a signal */
static int fault_lasts;          /* also all later calls of these kinds fail */
static int fault_kinds;          /* of calls that can fail so */

/* Begin to count; `file` is where the counter is, 8,200 bytes of zeros. */
int fault_arm(const char *folder, const char *file, long at, int code, int lasts, int kinds)
{
    int handle = open(file, O_RDWR | O_CLOEXEC);
    if (handle < 0)
        return -1;
    void *map = mmap(NULL, sizeof *counter, PROT_READ | PROT_WRITE, MAP_SHARED, handle, 0);
    close(handle);
    if (map == MAP_FAILED || snprintf(root, sizeof root, "%s/", folder) >= (int)sizeof root)
        return -1;
    fault_at = at, fault_code = code, fault_lasts = lasts, fault_kinds = kinds;
    counter = map;
    return 0;
}

/* A process that was started by the one that was armed finds the same settings in the environment. */
__attribute__((constructor)) static void from_environment(void)
{
    const char *all = getenv("FIELDMARK_FAULT");
    char folder[PATH_MAX], file[PATH_MAX];
    long at;
    int code, lasts, kinds;
    if (all && sscanf(all, "%4095[^|]|%4095[^|]|%ld|%d|%d|%d", folder, file, &at, &code, &lasts, &kinds) == 6)
        fault_arm(folder, file, at, code, lasts, kinds);
}

static int below(const char *path)
{
    return strncmp(path, root, strlen(root)) == 0;
}

static int path_of(int handle, char *found, size_t size)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t length = readlink(link, found, size - 1);
    if (length < 0)
        return 0;
    found[length] = 0;
    return 1;
}

static int named_below(int folder, const char *path)
{
    char start[PATH_MAX], whole[2 * PATH_MAX];
    if (path[0] == '/')
        return below(path);
    if (folder == AT_FDCWD ? !getcwd(start, sizeof start) : !path_of(folder, start, sizeof start))
        return 0;
    snprintf(whole, sizeof whole, "%s/%s", start, path);
    return below(whole);
}

/* Whether this call is to fail; errno is then set. */
static int fails(int kind)
{
    long number = atomic_fetch_add(&counter->count, 1) + 1;
    if (number <= CALLS)
        counter->kinds[number - 1] = (char)kind;
    if (!fault_at || number < fault_at || (number > fault_at && !fault_lasts))
        return 0;
    if (fault_code < 0) {
        kill(getpid(), -fault_code);
        return 0;
    }
    if (!(kind & fault_kinds))
        return 0;
    errno = fault_code;
    return 1;
}

static int handle_fails(int handle, int kind)
{
    char path[PATH_MAX];
    int kept = errno;
    if (!counter || !path_of(handle, path, sizeof path) || !below(path)) {
        errno = kept;
        return 0;
    }
    errno = kept;
    return fails(kind);
}

static int name_fails(int folder, const char *path, int kind)
{
    int kept = errno;
    int there = counter && path && named_below(folder, path);
    errno = kept;
    return there && fails(kind);
}

#define REAL(name) ((typeof(&name))dlsym(RTLD_NEXT, #name))
#define ON_HANDLE(type, name, kind, parameters, ...)                                                                  \
    type name parameters                                                                                               \
    {                                                                                                                  \
        static typeof(&name) real;                                                                                     \
        if (!real)                                                                                                     \
            real = REAL(name);                                                                                         \
        return handle_fails(handle, kind) ? -1 : real(__VA_ARGS__);                                                    \
    }
#define ON_NAME(name, kind, folder, path, parameters, ...)                                                            \
    int name parameters                                                                                                \
    {                                                                                                                  \
        static typeof(&name) real;                                                                                     \
        if (!real)                                                                                                     \
            real = REAL(name);                                                                                         \
        return name_fails(folder, path, kind) ? -1 : real(__VA_ARGS__);                                                \
    }

ON_HANDLE(ssize_t, write, GROWS, (int handle, const void *data, size_t size), handle, data, size)
ON_HANDLE(ssize_t, pwrite, GROWS, (int handle, const void *data, size_t size, off_t at), handle, data, size, at)
ON_HANDLE(ssize_t, pwrite64, GROWS, (int handle, const void *data, size_t size, off64_t at), handle, data, size, at)
ON_HANDLE(ssize_t, writev, GROWS, (int handle, const struct iovec *data, int count), handle, data, count)
ON_HANDLE(ssize_t, sendfile, GROWS, (int handle, int from, off_t *at, size_t size), handle, from, at, size)
ON_HANDLE(ssize_t, sendfile64, GROWS, (int handle, int from, off64_t *at, size_t size), handle, from, at, size)
ON_HANDLE(ssize_t, copy_file_range, GROWS,
          (int from, off64_t *at, int handle, off64_t *to, size_t size, unsigned flags),
          from, at, handle, to, size, flags)
ON_HANDLE(int, ftruncate, GROWS, (int handle, off_t size), handle, size)
ON_HANDLE(int, ftruncate64, GROWS, (int handle, off64_t size), handle, size)
ON_HANDLE(int, fsync, SYNCS, (int handle), handle)
ON_HANDLE(int, fdatasync, SYNCS, (int handle), handle)
ON_HANDLE(int, fchmod, NAMES, (int handle, mode_t mode), handle, mode)
int posix_fallocate64(int handle, off64_t at, off64_t size)
{
    return handle_fails(handle, GROWS) ? errno : REAL(posix_fallocate64)(handle, at, size);
}
int posix_fallocate(int handle, off_t at, off_t size) { return posix_fallocate64(handle, at, size); }
ON_NAME(rename, NAMES, AT_FDCWD, to, (const char *from, const char *to), from, to)
ON_NAME(renameat, NAMES, at, to, (int of, const char *from, int at, const char *to), of, from, at, to)
ON_NAME(renameat2, NAMES, at, to, (int of, const char *from, int at, const char *to, unsigned flags), of, from, at, to,
        flags)
ON_NAME(link, GROWS, AT_FDCWD, to, (const char *from, const char *to), from, to)
ON_NAME(linkat, GROWS, at, to, (int of, const char *from, int at, const char *to, int flags), of, from, at, to, flags)
ON_NAME(symlink, GROWS, AT_FDCWD, to, (const char *from, const char *to), from, to)
ON_NAME(mkdir, GROWS, AT_FDCWD, path, (const char *path, mode_t mode), path, mode)
ON_NAME(mkdirat, GROWS, at, path, (int at, const char *path, mode_t mode), at, path, mode)
ON_NAME(chmod, NAMES, AT_FDCWD, path, (const char *path, mode_t mode), path, mode)
ON_NAME(fchmodat, NAMES, at, path, (int at, const char *path, mode_t mode, int flags), at, path, mode, flags)
ON_NAME(truncate, GROWS, AT_FDCWD, path, (const char *path, off_t size), path, size)
ON_NAME(truncate64, GROWS, AT_FDCWD, path, (const char *path, off64_t size), path, size)
ON_NAME(unlink, REMOVES, AT_FDCWD, path, (const char *path), path)
ON_NAME(unlinkat, REMOVES, at, path, (int at, const char *path, int flags), at, path, flags)
ON_NAME(rmdir, REMOVES, AT_FDCWD, path, (const char *path), path)

#define OPENS(name, at, first, ...)                                                                                   \
    int name(__VA_ARGS__, const char *path, int flags, ...)                                                            \
    OPEN_BODY(name, at, (first, path, flags, mode))
#define OPEN_BODY(name, at, arguments)                                                                                \
    {                                                                                                                  \
        static typeof(&name) real;                                                                                     \
        mode_t mode = 0;                                                                                               \
        if (!real)                                                                                                     \
            real = REAL(name);                                                                                         \
        if (flags & (O_CREAT | O_TMPFILE)) {                                                                           \
            va_list more;                                                                                              \
            va_start(more, flags);                                                                                     \
            mode = va_arg(more, mode_t);                                                                               \
            va_end(more);                                                                                              \
        }                                                                                                              \
        return (flags & (O_CREAT | O_TRUNC)) && name_fails(at, path, GROWS) ? -1 : real arguments;                     \
    }
int open(const char *path, int flags, ...) OPEN_BODY(open, AT_FDCWD, (path, flags, mode))
int open64(const char *path, int flags, ...) OPEN_BODY(open64, AT_FDCWD, (path, flags, mode))
OPENS(openat, folder, folder, int folder)
OPENS(openat64, folder, folder, int folder)
