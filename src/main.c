/* comfy-agent [--port N] [-- ComfyUI's command line…]: see --help. */
#include "app.h"
#include "child_env.h"
#include "https.h"
#include "invocation.h"
#include "log.h"
#include "process.h"
#include "store.h"

#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { EXIT_USAGE = 64, EXIT_SOFTWARE = 70 };

static void print(void (*fill)(struct buf *out))
{
    struct buf out;
    buf_init(&out, SIZE_MAX);
    fill(&out);
    (void)fwrite(out.ptr, 1, out.len, stdout);
    buf_done(&out);
}

static void print_help(void)
{
    (void)printf(
        "comfy-agent %s: ComfyUI as an API\n\n"
        "  comfy-agent [--port N] -- python3 main.py --listen 127.0.0.1 --port 9001 …\n"
        "      starts ComfyUI, looks after it, and serves the API in front of it\n"
        "  COMFYUI_URL=http://127.0.0.1:8188 comfy-agent [--port N]\n"
        "      serves the API in front of a ComfyUI that somebody else looks after\n"
        "  RUN_URL=http://gpu.example:9000 comfy-agent [--port N]\n"
        "      takes tasks for a comfy-agent that has a ComfyUI and shares store and files\n"
        "  comfy-agent --help | --help=markdown | --version\n\n"
        "Settings are environment variables:\n\n",
        AGENT_VERSION);
    print(config_help);
}

static const char *env(const char *name)
{
    return getenv(name);
}

static int usage(const char *why)
{
    (void)fprintf(stderr, "comfy-agent: %s; see comfy-agent --help\n", why);
    return EXIT_USAGE;
}

struct arguments {
    uint64_t port;
    char *const *command;
    bool done; /* nothing more to do: exit_code says how it went */
    int exit_code;
};

static void read_arguments(struct arguments *ret, int argc, char **argv)
{
    static const struct option options[] = {
        {"help", optional_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'v'},
        {"port", required_argument, NULL, 'p'},
        {NULL, 0, NULL, 0},
    };
    int option;
    *ret = (struct arguments){.port = 0};
    while (!ret->done && (option = getopt_long(argc, argv, "+h", options, NULL)) != -1) {
        ret->done = true;
        if (option == 'h' && optarg == NULL)
            print_help();
        else if (option == 'h' && strcmp(optarg, "markdown") == 0)
            print(config_markdown);
        else if (option == 'v')
            (void)printf("comfy-agent %s (stores: %s)\n", AGENT_VERSION, store_schemes());
        else if (option == 'p' && slice_to_u64(slice_of(optarg), 65535, &ret->port) &&
                 ret->port > 0)
            ret->done = false;
        else
            ret->exit_code = usage("bad option");
    }
    if (optind < argc)
        ret->command = argv + optind;
}

/* glibc would raise the first of these to the size of the largest thing that was ever freed. From
 * then on a queue that was long for a moment would leave its hole in the heap for good. */
static void bound_memory(void)
{
    (void)mallopt(M_MMAP_THRESHOLD, 1024 * 1024);
    (void)mallopt(M_TRIM_THRESHOLD, 2 * 1024 * 1024);
}

static int run(const struct arguments *args)
{
    struct config cfg;
    struct buf text, faults;
    enum log_level level = LOG_INFO;
    buf_init(&text, SIZE_MAX);
    buf_init(&faults, SIZE_MAX);
    bool is_right = config_load(&cfg, env, &faults);
    ASSERT(is_right == (faults.len == 0)); /* app_run() refuses them, and what else it finds */
    if (invocation_on_platform(env, cfg.platform))
        log_set_output(STDOUT_FILENO); /* which is collected there */
    (void)log_level_parse(cfg.log_level, &level);
    log_set_level(level);
    log_set_json(strcmp(cfg.log_format, "json") == 0);
    config_describe(&cfg, &text);
    log_info("app", "comfy-agent %s %s", AGENT_VERSION, text.len > 0 ? text.ptr : "");
    buf_done(&text);
    struct app_options options = {
        .config = &cfg, .port = (unsigned)args->port, .command = args->command, .faults = &faults};
    int exit_code = app_run(&options);
    buf_done(&faults);
    config_done(&cfg);
    return exit_code;
}

int main(int argc, char **argv)
{
    struct arguments args;
    struct err err;
    process_guard_main(argc, argv);
    bound_memory();
    child_env_hide(environ);
    (void)signal(SIGPIPE, SIG_IGN);
    if (https_global_init(&err) != ERR_OK) {
        (void)fprintf(stderr, "comfy-agent: %s\n", err.msg);
        return EXIT_SOFTWARE;
    }
    read_arguments(&args, argc, argv);
    if (args.done)
        return args.exit_code;
    return run(&args);
}
