#include "proc_table.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* "pid (name) state parent group …", where the name may hold anything. */
static bool proc_entry_read(struct proc_entry *ret, const char *name)
{
    char path[64], text[512], *end;
    ret->pid = (int)strtol(name, NULL, 10);
    if (ret->pid <= 0)
        return false; /* no process's directory */
    (void)snprintf(path, sizeof(path), "/proc/%d/stat", ret->pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false; /* it is gone */
    ssize_t n = read(fd, text, sizeof(text) - 1);
    (void)close(fd);
    text[n > 0 ? n : 0] = '\0';
    const char *at = strrchr(text, ')');
    if (at == NULL || strlen(at) < strlen(") S 1 1"))
        return false;
    ret->is_dead = at[2] == 'Z' || at[2] == 'X';
    ret->parent = (int)strtol(at + strlen(") S "), &end, 10);
    ret->group = (int)strtol(end, NULL, 10);
    return true;
}

void proc_table_walk(bool (*look)(const struct proc_entry *entry, void *ctx), void *ctx)
{
    struct proc_entry entry;
    DIR *proc = opendir("/proc");
    if (proc == NULL)
        return;
    for (struct dirent *d; (d = readdir(proc)) != NULL;) {
        if (proc_entry_read(&entry, d->d_name) && !look(&entry, ctx))
            break;
    }
    (void)closedir(proc);
}
