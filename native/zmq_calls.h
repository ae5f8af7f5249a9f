/* The libzmq that pyzmq ships, called without its headers and without linking to it.
 *
 * pyzmq's extension module is loaded already; the calls are looked up among what it depends on, so that it is the very
 * library its sockets belong to. What is relied on is libzmq 4's stable interface: these signatures, and a message of
 * 64 bytes. */
#ifndef FABRIC_ZMQ_CALLS_H
#define FABRIC_ZMQ_CALLS_H

#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum { ZMQ_DONTWAIT_FLAG = 1, ZMQ_RCVMORE_OPTION = 13, ZMQ_EVENTS_OPTION = 15, ZMQ_POLLIN_EVENT = 1 };

typedef struct {
    _Alignas(8) unsigned char opaque[64];
} zmq_message;

typedef struct {
    int (*msg_init)(zmq_message *);
    int (*msg_init_size)(zmq_message *, size_t bytes);
    int (*msg_init_data)(zmq_message *, void *data, size_t bytes, void (*give_back)(void *data, void *hint), void *hint);
    void *(*msg_data)(zmq_message *);
    size_t (*msg_size)(const zmq_message *);
    int (*msg_more)(const zmq_message *);
    int (*msg_close)(zmq_message *);
    int (*msg_recv)(zmq_message *, void *socket, int flags);
    int (*msg_send)(zmq_message *, void *socket, int flags);
    int (*getsockopt)(void *socket, int option, void *value, size_t *value_bytes);
    int (*last_errno)(void);
    void (*version)(int *major, int *minor, int *patch);
    const char *(*strerror)(int error);
} zmq_calls;

static zmq_calls zmq; /* all null until loaded */

/* Look the calls up in the loaded module `path`; nonzero if all are there, of version 4 and, unless that is empty, of
 * the version that is expected. */
static int zmq_calls_load(const char *path, const char *expected_version) {
    zmq_calls found;
    char text[48];
    int major = 0, minor = 0, patch = 0;
    void *module = dlopen(path, RTLD_NOLOAD | RTLD_LAZY);
    if (!module) return 0;
    const struct {
        const char *name;
        void *at;
    } wanted[] = {
        {"zmq_msg_init", &found.msg_init},     {"zmq_msg_init_size", &found.msg_init_size},
        {"zmq_msg_init_data", &found.msg_init_data},
        {"zmq_msg_data", &found.msg_data},     {"zmq_msg_size", &found.msg_size},
        {"zmq_msg_more", &found.msg_more},     {"zmq_msg_close", &found.msg_close},
        {"zmq_msg_recv", &found.msg_recv},     {"zmq_msg_send", &found.msg_send},
        {"zmq_getsockopt", &found.getsockopt}, {"zmq_errno", &found.last_errno},
        {"zmq_version", &found.version},       {"zmq_strerror", &found.strerror},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        void *address = dlsym(module, wanted[i].name);
        if (!address) {
            dlclose(module);
            return 0;
        }
        memcpy(wanted[i].at, &address, sizeof address); /* ISO C has no cast from an object's to a function's address */
    }
    found.version(&major, &minor, &patch);
    snprintf(text, sizeof text, "%d.%d.%d", major, minor, patch);
    if (major != 4 || (*expected_version && strcmp(text, expected_version) != 0)) {
        dlclose(module);
        return 0;
    }
    zmq = found; /* the module stays open: the calls are used until the process ends */
    return 1;
}

#endif
