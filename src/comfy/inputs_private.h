/* What inputs.c (the way of a job) and inputs_find.c (what is a file) share. */
#ifndef INPUTS_PRIVATE_H
#define INPUTS_PRIVATE_H

#include "inputs.h"
#include "list.h"

enum input_kind { INPUT_NAME, INPUT_ADDRESS, INPUT_DATA, INPUT_BASE64 };

/* By the first bytes and the alphabet alone; `token` is a string. */
enum input_kind input_kind_of(struct slice token);

struct input {          /* a string that looks like a file */
    unsigned node;      /* position in the prompt */
    struct slice name;  /* token */
    struct slice value; /* token */
    enum input_kind kind;
    bool sure; /* LoadImage's `image`: nobody has to be asked */
};

/* At most INPUTS_MAX; the number there are, which may be greater. */
unsigned inputs_find(const struct prompt *p, struct input ret[INPUTS_MAX]);
/* Does object_info's answer for a class mark this input as an upload? Python spells names that are
 * not ASCII in escapes, callers need not. `info` is checked JSON,
 * {"Class": {"input": {"required": {"name": [type, {"image_upload": true}]}, "optional": …}}}. */
bool inputs_class_takes(struct slice info, struct slice class_type, struct slice name);
/* The bytes of a data: URI or a base64 text. Pure. */
enum err_code input_decode(struct slice text, enum input_kind kind, struct buf *out,
                           struct err *err) MUST_CHECK;

#endif
