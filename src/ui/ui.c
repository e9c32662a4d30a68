/* The page itself is the other files of this folder; app.js tells how they fit together. */
#include "ui.h"

const struct ui_file *ui_find(struct slice name)
{
    for (size_t i = 0; i < ui_files_count; i++)
        if (slice_is(name, ui_files[i].name))
            return &ui_files[i];
    return NULL;
}
