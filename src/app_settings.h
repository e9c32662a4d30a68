/* What settings mean that say more than a number or a word: addresses, lists, the store. */
#ifndef APP_SETTINGS_H
#define APP_SETTINGS_H

#include "address.h"
#include "app.h"

struct app_settings {
    char comfy_host[46]; /* in numbers */
    unsigned comfy_port;
    struct address_allow allow; /* where inputs may be fetched from besides */
    bool is_door;               /* no ComfyUI, but RUN_URL … */
    struct slice door_key;      /* … which is called with our first key; of the config */
};

/* Every fault is one more line of *faults. A name in COMFYUI_URL is looked up, once, here. */
void app_settings_read(struct app_settings *s, const struct app_options *options,
                       struct buf *faults);
void app_settings_done(struct app_settings *s);

#endif
