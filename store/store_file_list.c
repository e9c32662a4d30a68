/* Lists of a directory, and what is kept of a walk.
 *
 * A listing is a run of entries in the order of the list, without a gap: all that lay behind `from`
 * when the walk began, or the newest of it when there was more than is kept. A page is cut from it
 * if it reaches far enough; or else another walk begins at the page's cursor, and its listing
 * takes the place of this one. So a cursor means the same with and without a kept listing: a place
 * in the order, behind which the list goes on.
 *
 * A task that is written meanwhile moves to the front, where whoever pages on does not see it; in a
 * kept listing it still has its old place. Nothing moves the other way.
 */
#include "store_file_list.h"

#include <dirent.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

struct listed {
    uint64_t stamp; /* nanoseconds of the file's time */
    char key[STORE_KEY_MAX + 1];
};

enum {
    LISTED_FIRST = 256,
    LOOK_AT_CLOCK_EVERY = 64,
};

struct file_listing {
    uint64_t began_ms, end_ms;
    bool has_from;
    struct listed from;
    struct listed *entry; /* sorted once the walk is over */
    unsigned count, room, room_max;
    bool cut;           /* there was more … */
    struct listed last; /* … behind this one */
};

static struct file_listing *listing_new(const struct file_list *list, const struct listed *from)
{
    struct file_listing *l = xcalloc(1, sizeof(*l));
    ASSERT(list->entries_max > 2 * STORE_PAGE_MAX + 1);
    l->began_ms = clock_mono_ms();
    l->end_ms = l->began_ms + list->keep_ms;
    l->room_max = list->entries_max;
    l->has_from = from != NULL;
    if (from != NULL)
        l->from = *from;
    return l;
}

uint64_t file_listing_end(const struct file_listing *l)
{
    return l->end_ms;
}

void file_listing_free(struct file_listing *l)
{
    if (l == NULL)
        return;
    free(l->entry);
    free(l);
}

/* --- the walk -------------------------------------------------------------------------------- */

/* Newest first; of one moment by name. */
static int listed_compare(const void *a, const void *b)
{
    const struct listed *left = a;
    const struct listed *right = b;
    if (left->stamp != right->stamp)
        return left->stamp > right->stamp ? -1 : 1;
    return strcmp(left->key, right->key);
}

static bool comes_before(const struct listed *a, const struct listed *b)
{
    return listed_compare(a, b) < 0;
}

static void listing_sort(struct file_listing *l)
{
    if (l->count > 0)
        qsort(l->entry, l->count, sizeof(*l->entry), listed_compare);
}

/* Full: the newer half is kept, and from now on only what belongs into it. */
static void listing_make_room(struct file_listing *l)
{
    if (l->room < l->room_max) {
        l->room = l->room == 0 ? LISTED_FIRST : l->room * 2;
        l->room = l->room < l->room_max ? l->room : l->room_max;
        l->entry = xrealloc(l->entry, l->room * sizeof(*l->entry));
        return;
    }
    listing_sort(l);
    l->count = l->room_max / 2;
    l->cut = true;
    l->last = l->entry[l->count - 1];
}

static void listing_add(struct file_listing *l, const struct listed *e)
{
    if (l->has_from && !comes_before(&l->from, e))
        return;
    if (l->count == l->room)
        listing_make_room(l);
    if (!l->cut || !comes_before(&l->last, e))
        l->entry[l->count++] = *e;
}

static bool is_listed(const char *name)
{
    static const struct slice suffix = {"~task", 5};
    struct slice key = slice_of(name);
    return key.len > suffix.len &&
           memcmp(name + key.len - suffix.len, suffix.ptr, suffix.len) == 0 && store_key_ok(key);
}

static enum err_code listing_walk(struct file_listing *l, const struct file_list *list, DIR *d,
                                  struct err *err)
{
    struct dirent *entry;
    unsigned seen = 0;
    while (errno = 0, (entry = readdir(d)) != NULL) {
        struct stat st;
        struct listed e;
        if (atomic_load(list->stop))
            return err_set(err, ERR_CANCELLED, "closing");
        if (++seen % LOOK_AT_CLOCK_EVERY == 0 && clock_mono_ms() > list->give_up_ms)
            return err_set(err, ERR_TIMEOUT, "the directory could not be read in time");
        if (!is_listed(entry->d_name) ||
            fstatat(dirfd(d), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode))
            continue;
        e.stamp = (uint64_t)st.st_mtim.tv_sec * 1000000000u + (uint64_t)st.st_mtim.tv_nsec;
        (void)snprintf(e.key, sizeof(e.key), "%s", entry->d_name);
        listing_add(l, &e);
    }
    return errno == 0 ? ERR_OK : err_sys(err, ERR_UNAVAILABLE, errno, "reading the directory");
}

static enum err_code listing_make(struct file_listing *l, const struct file_list *list,
                                  struct err *err)
{
    enum err_code code = ERR_OK;
    DIR *d = opendir(list->dir);
    if (d == NULL && errno != ENOENT)
        return err_sys(err, ERR_UNAVAILABLE, errno, "opening the directory");
    if (d != NULL) {
        code = listing_walk(l, list, d, err);
        (void)closedir(d);
    }
    listing_sort(l);
    return code;
}

/* --- a page ---------------------------------------------------------------------------------- */

/* The first entry behind `after` (NULL: the first of all). */
static unsigned listing_find(const struct file_listing *l, const struct listed *after)
{
    unsigned low = 0;
    unsigned high = after != NULL ? l->count : 0;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (comes_before(after, &l->entry[middle]))
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* Who asks for the newest must not miss what is newer than the walk; others are behind that. */
static bool listing_serves(const struct file_listing *l, const struct file_list *list,
                           const struct listed *after)
{
    if (after == NULL)
        return !l->has_from && l->began_ms > list->asked_ms;
    return clock_mono_ms() < l->end_ms && (!l->has_from || !comes_before(after, &l->from)) &&
           (!l->cut || l->count - listing_find(l, after) > list->page->limit);
}

static void listing_fill(const struct file_listing *l, const struct listed *after,
                         struct store_page *page)
{
    unsigned first = listing_find(l, after);
    unsigned behind = l->count - first;
    page->count = behind < page->limit ? behind : page->limit;
    page->next[0] = '\0';
    for (unsigned i = 0; i < page->count; i++) {
        page->stamps[i] = l->entry[first + i].stamp;
        memcpy(page->keys[i], l->entry[first + i].key, sizeof(page->keys[i]));
    }
    if (behind > page->limit)
        store_page_cursor(page, page->count - 1, page->next);
}

enum err_code file_list_work(struct file_list *list, struct err *err)
{
    struct listed place;
    const char *key;
    const struct listed *after = NULL;
    if (list->page->cursor[0] != '\0') {
        if (!store_cursor_read(list->page->cursor, &place.stamp, &key))
            return err_set(err, ERR_INVALID, "not a cursor");
        (void)snprintf(place.key, sizeof(place.key), "%s", key);
        after = &place;
    }
    if (list->kept == NULL || !listing_serves(list->kept, list, after)) {
        file_listing_free(list->kept);
        list->kept = listing_new(list, after);
        enum err_code code = listing_make(list->kept, list, err);
        if (code != ERR_OK) {
            file_listing_free(list->kept);
            list->kept = NULL;
            return code;
        }
    }
    listing_fill(list->kept, after, list->page);
    return ERR_OK;
}
