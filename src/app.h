/* The program: builds all objects, connects what they tell each other, and takes them down again in
 * the reverse order. */
#ifndef APP_H
#define APP_H

#include "config.h"

struct app_options {
    const struct config *config;
    unsigned port;        /* 0: from the config */
    char *const *command; /* ComfyUI's; NULL: COMFYUI_URL */
    struct buf *faults;   /* what is wrong with the config, a line each; more may be found */
};

/* Runs until it is told to stop. The process's exit code: 0 stopped as asked, 1 ComfyUI given up,
 * 69 it cannot listen (the port is taken), 70 it cannot go on (the stop hangs), 78 there are
 * faults in the settings: all are logged. */
int app_run(const struct app_options *options);

#endif
