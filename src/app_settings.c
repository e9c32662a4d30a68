#include "app_settings.h"

#include "door.h"

#include <netdb.h>
#include <stdio.h>

#include <uv.h>

/* Where ComfyUI is, of http://host[:port][/]. */
static enum err_code settings_read_url(struct app_settings *s, const char *url, struct err *err)
{
    static const char scheme[] = "http://";
    char host[256];
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found;
    if (strncmp(url, scheme, strlen(scheme)) != 0)
        return err_set(err, ERR_INVALID, "must begin with http://");
    const char *at = url + strlen(scheme);
    bool is_v6 = at[0] == '[';
    size_t len = is_v6 ? strcspn(++at, "]") : strcspn(at, ":/");
    if (len == 0 || len >= sizeof(host))
        return err_set(err, ERR_INVALID, "no host");
    slice_copy((struct slice){at, len}, host, sizeof(host));
    at += len + (is_v6 && at[len] == ']' ? 1 : 0);
    uint64_t port = 80;
    if (at[0] == ':') {
        size_t digits = strcspn(++at, "/");
        if (!slice_to_u64((struct slice){at, digits}, 65535, &port) || port == 0)
            return err_set(err, ERR_INVALID, "bad port");
        at += digits;
    }
    if (at[0] != '\0' && strcmp(at, "/") != 0)
        return err_set(err, ERR_INVALID, "a path is not supported");
    int rc = getaddrinfo(host, NULL, &hints, &found);
    if (rc != 0)
        return err_set(err, ERR_INVALID, "%s: %s", host, gai_strerror(rc));
    rc = getnameinfo(found->ai_addr, found->ai_addrlen, s->comfy_host, sizeof(s->comfy_host), NULL,
                     0, NI_NUMERICHOST);
    freeaddrinfo(found);
    if (rc != 0)
        return err_set(err, ERR_INVALID, "%s: %s", host, gai_strerror(rc));
    s->comfy_port = (unsigned)port;
    return ERR_OK;
}

static bool is_address(const char *host)
{
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    return uv_ip4_addr(host, 0, &v4) == 0 || uv_ip6_addr(host, 0, &v6) == 0;
}

static enum err_code settings_read_door(struct app_settings *s, const struct config *cfg,
                                        struct err *err)
{
    struct slice keys = slice_of(cfg->api_key);
    s->is_door = true;
    s->door_key = SLICE_EMPTY;
    while (keys.len > 0 && s->door_key.len == 0)
        s->door_key = slice_next(&keys, ',');
    if (slice_starts(slice_of(cfg->store_url), SLICE("mem:")))
        return err_set(err, ERR_INVALID, "STORE_URL must be a store that both share");
    return door_check(cfg->run_url, s->door_key, err);
}

/* ComfyUI is ours, somebody else's, or elsewhere. */
static void settings_read_comfyui(struct app_settings *s, const struct app_options *options,
                                  struct buf *faults)
{
    const struct config *cfg = options->config;
    struct err err;
    if (options->command != NULL)
        return;
    if (cfg->comfyui_url[0] != '\0') {
        if (settings_read_url(s, cfg->comfyui_url, &err) != ERR_OK)
            buf_addf(faults, "COMFYUI_URL: %s\n", err.msg);
    } else if (cfg->run_url[0] != '\0') {
        if (settings_read_door(s, cfg, &err) != ERR_OK)
            buf_addf(faults, "RUN_URL: %s\n", err.msg);
    } else {
        buf_adds(faults, "neither a command for ComfyUI (after --) nor COMFYUI_URL is given, nor "
                         "RUN_URL, for a front door\n");
    }
}

void app_settings_read(struct app_settings *s, const struct app_options *options,
                       struct buf *faults)
{
    const struct config *cfg = options->config;
    struct err err;
    *s = (struct app_settings){.comfy_port = (unsigned)cfg->comfyui_port};
    (void)snprintf(s->comfy_host, sizeof(s->comfy_host), "127.0.0.1");
    settings_read_comfyui(s, options, faults);
    if (address_allow_parse(slice_of(cfg->fetch_allow), &s->allow, &err) != ERR_OK)
        buf_addf(faults, "FETCH_ALLOW: %s\n", err.msg);
    /* A body, the prompt that is made of it, and on a WebSocket one more copy: the largest that is
     * allowed must find room, or "later" would be said for ever. */
    if (cfg->bodies_max_bytes / 4 < cfg->body_max_bytes)
        buf_adds(faults, "BODIES_MAX_BYTES: must be at least four times BODY_MAX_BYTES\n");
    if (!is_address(cfg->listen_host))
        buf_addf(faults, "LISTEN_HOST: %s is no address in numbers\n", cfg->listen_host);
}

void app_settings_done(struct app_settings *s)
{
    address_allow_done(&s->allow);
}
