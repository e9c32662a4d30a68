#include "backends.h"

#include "base.h"

#include <dirent.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char dir_of_row[BACKEND_URL_MAX];

void backend_make_dir(char dir[BACKEND_URL_MAX])
{
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(dir, BACKEND_URL_MAX, "%s/store-XXXXXX", tmp != NULL ? tmp : "/tmp");
    ASSERT(mkdtemp(dir) != NULL);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

void backend_remove_dir(const char *dir)
{
    (void)nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* Two levels below what is there, so that the store has to make them. */
static bool file_start_threads(char url[BACKEND_URL_MAX], unsigned threads)
{
    backend_make_dir(dir_of_row);
    return snprintf(url, BACKEND_URL_MAX, "file://%s/a/b?threads=%u", dir_of_row, threads) > 0;
}

static bool file_start(char url[BACKEND_URL_MAX])
{
    return file_start_threads(url, 1);
}

static bool file4_start(char url[BACKEND_URL_MAX])
{
    return file_start_threads(url, 4);
}

static void file_stop(void)
{
    backend_remove_dir(dir_of_row);
}

static unsigned file_leftovers(void)
{
    char dir[BACKEND_URL_MAX + 8];
    struct dirent *entry;
    unsigned count = 0;
    (void)snprintf(dir, sizeof(dir), "%s/a/b", dir_of_row);
    DIR *d = opendir(dir);
    ASSERT(d != NULL);
    while ((entry = readdir(d)) != NULL)
        count += strstr(entry->d_name, ".tmp") != NULL;
    (void)closedir(d);
    return count;
}

static bool mem_start(char url[BACKEND_URL_MAX])
{
    return snprintf(url, BACKEND_URL_MAX, "mem:") > 0;
}

static bool slow_mem_start(char url[BACKEND_URL_MAX])
{
    return snprintf(url, BACKEND_URL_MAX, "mem:?delay_ms=2") > 0;
}

static void mem_stop(void)
{
}

static const struct backend_row rows[] = {
    {"file", true, file_start, file_stop, file_leftovers},
    {"file4", true, file4_start, file_stop, file_leftovers},
    {"mem", false, mem_start, mem_stop, NULL},
    {"slow_mem", false, slow_mem_start, mem_stop, NULL},
};

const struct backend_row *backend_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    return NULL;
}
