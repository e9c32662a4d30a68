/* The stores that the contract is tried on: one row each. */
#ifndef BACKENDS_H
#define BACKENDS_H

#include <stdbool.h>
#include <stddef.h>

enum { BACKEND_URL_MAX = 512 };

struct server;
struct backend_row {
    const char *name;
    bool is_shared; /* other processes see the same documents */
    /* Makes it ready and empty, and writes its URL. False: it cannot be had here. */
    bool (*start)(char url[BACKEND_URL_MAX]);
    void (*stop)(void);
    unsigned (*leftovers)(void); /* of writers that were killed; NULL: leaves none */
    struct server *server;       /* what keeps the documents; NULL: nothing that could be killed */
    void (*revive)(struct server *s); /* after server_kill() */
    /* Begins (true) and ends a time in which no write succeeds; NULL: for other rows. */
    void (*trouble)(bool on);
};

const struct backend_row *backend_find(const char *name);
/* A new empty directory and its end, for rows and tests that want one. */
void backend_make_dir(char dir[BACKEND_URL_MAX]);
void backend_remove_dir(const char *dir);

#endif
