#include "task_files.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static bool member_text(struct slice item, const char *key, struct buf *out)
{
    struct slice token;
    buf_reset(out);
    return json_get(item, key, &token) && json_kind(token) == JSON_STRING &&
           json_unescape(token, out) == ERR_OK && memchr(out->ptr, '\0', out->len) == NULL;
}

/* The path of an output beneath the task's folder, or NULL: it lies elsewhere. */
static char *path_beneath(struct slice item, const char *id)
{
    struct buf type;
    struct buf folder;
    struct buf name;
    char *path = NULL;
    buf_init(&type, 64);
    buf_init(&folder, 4096);
    buf_init(&name, 4096);
    buf_adds(&type, "");
    buf_adds(&folder, "");
    buf_adds(&name, "");
    if (json_kind(item) == JSON_OBJECT && member_text(item, "type", &type) &&
        slice_is(buf_slice(&type), "output") && member_text(item, "subfolder", &folder) &&
        member_text(item, "filename", &name) && strchr(name.ptr, '/') == NULL) {
        size_t len = strlen(id);
        bool exact = slice_is(buf_slice(&folder), id);
        if (exact || (strncmp(folder.ptr, id, len) == 0 && folder.ptr[len] == '/')) {
            const char *rest = exact ? "" : folder.ptr + len + 1;
            size_t size = strlen(rest) + name.len + 2;
            path = xmalloc(size);
            (void)snprintf(path, size, "%s%s%s", rest, rest[0] != '\0' ? "/" : "", name.ptr);
        }
    }
    buf_done(&type);
    buf_done(&folder);
    buf_done(&name);
    return path;
}

void task_files_init(struct task_files *f, const char *output_dir, const char *id,
                     struct slice outputs)
{
    struct json_iter it;
    struct slice item;
    *f = (struct task_files){.count = 0};
    if (output_dir == NULL || outputs.len == 0)
        return;
    size_t size = strlen(output_dir) + strlen(id) + 2;
    f->folder = xmalloc(size);
    (void)snprintf(f->folder, size, "%s/%s", output_dir, id);
    json_iter_init(&it, outputs);
    while (json_next(&it, NULL, &item)) {
        char *path = path_beneath(item, id);
        if (path == NULL)
            continue;
        f->paths = xrealloc(f->paths, (f->count + 1) * sizeof(*f->paths));
        f->paths[f->count++] = path;
    }
}

/* Removes what `path` names beneath the open folder, then the folders on the way if they are empty.
 * The depth is that of the path, whose length is bounded. */
static void remove_beneath(int folder, char *path)
{
    char *slash = strchr(path, '/');
    if (slash == NULL) {
        (void)unlinkat(folder, path, 0);
        return;
    }
    *slash = '\0';
    if (path[0] != '\0' && strcmp(path, ".") != 0 && strcmp(path, "..") != 0) {
        int inner = openat(folder, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (inner >= 0) {
            remove_beneath(inner, slash + 1);
            (void)close(inner);
            (void)unlinkat(folder, path, AT_REMOVEDIR);
        }
    }
}

void task_files_remove(struct task_files *f)
{
    if (f->folder == NULL)
        return;
    int folder = open(f->folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0)
        return;
    for (unsigned i = 0; i < f->count; i++)
        remove_beneath(folder, f->paths[i]);
    (void)close(folder);
    (void)rmdir(f->folder);
}

void task_files_done(struct task_files *f)
{
    for (unsigned i = 0; i < f->count; i++)
        free(f->paths[i]);
    free(f->paths);
    free(f->folder);
    *f = (struct task_files){.count = 0};
}
