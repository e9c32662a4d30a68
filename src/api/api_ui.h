/* The page, as the gate sees it. */
#ifndef API_UI_H
#define API_UI_H

#include "api.h"

/* 401 with a form: whoever opens the page without a key is a person. again: the key that was given
 * is not known, which the form then says. */
void ui_ask_key(struct http_req *req, bool again);

#endif
