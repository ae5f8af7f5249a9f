/* Peers in C: ZeroMQ without Python, a Unix-domain socket, and a ring in shared memory.
 *
 * Compiled at bench time into a library that a worker loads; the loops are those of fabric/bench/roles.py:
 *
 *     bench_send       every record of a block, by schedule (interval_ns > 0) or as fast as it is taken
 *     bench_receive    into a block, with the time of each arrival
 *
 * libzmq is the one that pyzmq brings: it is loaded by its path, and the few functions that are needed are declared here.
 * All functions return 0 or more if they succeed and -errno if not.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#endif

enum { ZMQ_SUB = 2, ZMQ_SUBSCRIBE = 6, ZMQ_XPUB = 9, ZMQ_DONTWAIT = 1, ZMQ_LINGER = 17, ZMQ_XPUB_VERBOSE = 40,
       ZMQ_RCVTIMEO = 27, ZMQ_XPUB_NODROP = 69 };
enum { TRANSPORT_ZMQ = 0, TRANSPORT_UNIX = 1, TRANSPORT_RING = 2 };
enum { RING_SLOTS = 8192, RING_BYTES = 64 * 1024 * 64, MEET_MS = 20000 };

/* One writer, one reader. Each side's position has cache lines of its own; `waits` is set by a reader that is about to
 * sleep, and is the word that it sleeps on. */
struct ring {
    _Atomic uint64_t written;
    char away_1[120];
    _Atomic uint64_t read;
    char away_2[120];
    _Atomic uint32_t waits;
    char away_3[124];
    char data[];
};

struct peer {
    int transport, spins, file, listener;
    void *context, *socket;
    struct ring *ring;
    uint64_t capacity; /* bytes of the ring's data */
    int (*zmq_send)(void *, const void *, size_t, int);
    int (*zmq_recv)(void *, void *, size_t, int);
    int (*zmq_errno)(void);
};

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static int open_zmq(struct peer *p, const char *library, const char *endpoint, int sends) {
    void *zmq = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (!zmq) return -ENOENT;
    void *(*new_context)(void) = (void *(*)(void))dlsym(zmq, "zmq_ctx_new");
    void *(*new_socket)(void *, int) = (void *(*)(void *, int))dlsym(zmq, "zmq_socket");
    int (*set)(void *, int, const void *, size_t) = (int (*)(void *, int, const void *, size_t))dlsym(zmq, "zmq_setsockopt");
    int (*attach)(void *, const char *) = (int (*)(void *, const char *))dlsym(zmq, sends ? "zmq_bind" : "zmq_connect");
    p->zmq_send = (int (*)(void *, const void *, size_t, int))dlsym(zmq, "zmq_send");
    p->zmq_recv = (int (*)(void *, void *, size_t, int))dlsym(zmq, "zmq_recv");
    p->zmq_errno = (int (*)(void))dlsym(zmq, "zmq_errno");
    if (!new_context || !new_socket || !set || !attach || !p->zmq_send || !p->zmq_recv || !p->zmq_errno) return -ENOSYS;
    p->context = new_context();
    p->socket = new_socket(p->context, sends ? ZMQ_XPUB : ZMQ_SUB);
    int one = 1, zero = 0, meet_ms = MEET_MS;
    set(p->socket, ZMQ_LINGER, &zero, sizeof zero);
    if (sends) {
        set(p->socket, ZMQ_XPUB_NODROP, &one, sizeof one);
        set(p->socket, ZMQ_XPUB_VERBOSE, &one, sizeof one);
        set(p->socket, ZMQ_RCVTIMEO, &meet_ms, sizeof meet_ms);
    }
    if (attach(p->socket, endpoint)) return -p->zmq_errno();
    if (!sends && set(p->socket, ZMQ_SUBSCRIBE, "", 0)) return -p->zmq_errno();
    return 0;
}

static int open_unix(struct peer *p, const char *path, int sends) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) return -ENAMETOOLONG;
    strcpy(address.sun_path, path);
    int made = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (made < 0) return -errno;
    if (sends) {
        if (bind(made, (struct sockaddr *)&address, sizeof address) || listen(made, 1)) return -errno;
        p->listener = made;
    } else {
        if (connect(made, (struct sockaddr *)&address, sizeof address)) return -errno;
        p->file = made;
    }
    return 0;
}

static int open_ring(struct peer *p, const char *path, int sends) {
    size_t bytes = sizeof(struct ring) + RING_BYTES;
    int file = open(path, sends ? O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC : O_RDWR | O_CLOEXEC, 0600);
    if (file < 0) return -errno;
    if (sends && ftruncate(file, (off_t)bytes)) return -errno;
    p->ring = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (p->ring == MAP_FAILED) return -errno;
    p->capacity = RING_BYTES;
    if (sends) memset(p->ring, 0, bytes); /* pages are there before the clock runs */
    return 0;
}

/* A peer, or NULL with `*error` set. */
struct peer *bench_open(int transport, const char *library, const char *address, int sends, int spins, int *error) {
    struct peer *p = calloc(1, sizeof *p);
    if (!p) {
        *error = -ENOMEM;
        return NULL;
    }
    p->transport = transport;
    p->spins = spins;
    p->file = p->listener = -1;
    *error = transport == TRANSPORT_ZMQ    ? open_zmq(p, library, address, sends)
             : transport == TRANSPORT_UNIX ? open_unix(p, address, sends)
                                           : open_ring(p, address, sends);
    return *error ? NULL : p;
}

/* Wait until the receiver would get what is sent now. */
int bench_meet(struct peer *p) {
    char told[64];
    if (p->transport == TRANSPORT_ZMQ) return p->zmq_recv(p->socket, told, sizeof told, 0) < 0 ? -p->zmq_errno() : 0;
    if (p->transport == TRANSPORT_UNIX) {
        p->file = accept(p->listener, NULL, NULL);
        return p->file < 0 ? -errno : 0;
    }
    return 0;
}

static int send_ring(struct peer *p, const void *message, uint64_t bytes) {
    struct ring *r = p->ring;
    uint64_t at = atomic_load_explicit(&r->written, memory_order_relaxed);
    /* A full ring: the reader is behind, and on one CPU it must be given the turn. */
    for (int turns = 0; at + bytes - atomic_load_explicit(&r->read, memory_order_acquire) > p->capacity; turns++)
        if (p->spins) relax();
        else if (turns < 100) relax();
        else usleep(20);
    memcpy(r->data + at % p->capacity, message, bytes); /* messages divide the capacity: none wraps */
    atomic_store_explicit(&r->written, at + bytes, memory_order_seq_cst);
#ifdef __linux__
    if (atomic_load_explicit(&r->waits, memory_order_seq_cst)) {
        atomic_store_explicit(&r->waits, 0, memory_order_seq_cst);
        syscall(SYS_futex, &r->waits, FUTEX_WAKE, 1, NULL, NULL, 0);
    }
#endif
    return 0;
}

static int64_t receive_ring(struct peer *p, void *into, uint64_t bytes) {
    struct ring *r = p->ring;
    uint64_t at = atomic_load_explicit(&r->read, memory_order_relaxed);
    while (atomic_load_explicit(&r->written, memory_order_seq_cst) - at < bytes) {
        if (p->spins) {
            relax();
            continue;
        }
#ifdef __linux__
        atomic_store_explicit(&r->waits, 1, memory_order_seq_cst);
        if (atomic_load_explicit(&r->written, memory_order_seq_cst) - at < bytes)
            syscall(SYS_futex, &r->waits, FUTEX_WAIT, 1, NULL, NULL, 0);
#else
        usleep(20);
#endif
    }
    memcpy(into, r->data + at % p->capacity, bytes);
    atomic_store_explicit(&r->read, at + bytes, memory_order_release);
    return (int64_t)bytes;
}

static int send_one(struct peer *p, const void *message, size_t bytes) {
    if (p->transport == TRANSPORT_ZMQ) return p->zmq_send(p->socket, message, bytes, 0) < 0 ? -p->zmq_errno() : 0;
    if (p->transport == TRANSPORT_UNIX) return send(p->file, message, bytes, MSG_NOSIGNAL) < 0 ? -errno : 0;
    return send_ring(p, message, bytes);
}

static int64_t receive_one(struct peer *p, void *into, size_t bytes) {
    if (p->transport == TRANSPORT_RING) return receive_ring(p, into, bytes);
    for (;;) {
        int zmq = p->transport == TRANSPORT_ZMQ;
        int64_t got = zmq ? p->zmq_recv(p->socket, into, bytes, p->spins ? ZMQ_DONTWAIT : 0)
                          : recv(p->file, into, bytes, p->spins ? MSG_DONTWAIT : 0);
        if (got > 0) return got;
        if (got == 0) return -EPIPE; /* the other side is gone */
        int error = zmq ? p->zmq_errno() : errno;
        if (error != EAGAIN && error != EINTR) return -error;
        if (p->spins) relax();
    }
}

/* Sends `count` records; a record's first two words become the intended and the actual time, if there is a schedule. */
int bench_send(struct peer *p, char *records, int64_t count, int64_t bytes, int64_t per_message, double interval_ns,
               int64_t lead_ns, int64_t *began_ended) {
    int64_t began = now_ns() + (interval_ns > 0 ? lead_ns : 0);
    for (int64_t number = 0; number < count; number += per_message) {
        char *message = records + number * bytes;
        if (interval_ns > 0) {
            int64_t intended = began + (int64_t)((double)number * interval_ns), now;
            if (!p->spins && now_ns() < intended) {
                struct timespec until = {.tv_sec = intended / 1000000000, .tv_nsec = intended % 1000000000};
#ifdef __linux__
                while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) {}
#else
                (void)until;
#endif
            }
            while ((now = now_ns()) < intended) relax();
            int64_t times[2] = {intended, now};
            memcpy(message, times, sizeof times);
        }
        int64_t left = count - number < per_message ? count - number : per_message;
        int failed = send_one(p, message, (size_t)(left * bytes));
        if (failed) return failed;
    }
    began_ended[0] = began;
    began_ended[1] = now_ns();
    return 0;
}

/* Receives `count` records into a block, and when each was there. */
int bench_receive(struct peer *p, char *records, int64_t count, int64_t bytes, int64_t per_message, int64_t *times,
                  int64_t *ended) {
    for (int64_t number = 0; number < count;) {
        int64_t left = count - number < per_message ? count - number : per_message;
        int64_t got = receive_one(p, records + number * bytes, (size_t)(left * bytes));
        if (got < 0) return (int)got;
        if (got % bytes) return -EPROTO;
        int64_t now = now_ns();
        for (int64_t end = number + got / bytes; number < end; number++) times[number] = now;
    }
    *ended = now_ns();
    return 0;
}
