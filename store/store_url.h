/* STORE_URL, taken apart. Nothing said here ever repeats what stands in a URL, except names of
 * parameters of a URL without an '@': whatever else it is, it may be a password in a wrong place.
 */
#ifndef STORE_URL_H
#define STORE_URL_H

#include "store.h"

/* Percent-decodes the parts; an absent or empty one is NULL. The query is kept raw, its encoding is
 * checked. store_url_done() after success. */
enum err_code store_url_parse(struct store_url *ret, const char *text, struct err *err) MUST_CHECK;
void store_url_done(struct store_url *url);

/* A parameter that is a whole number in min..max; *ret stays as it was when it is absent. */
enum err_code store_url_param_uint(struct store_url *url, const char *name, unsigned min,
                                   unsigned max, unsigned *ret, struct err *err) MUST_CHECK;
/* ERR_INVALID if a parameter is left that nobody asked for, or was given twice. */
enum err_code store_url_check_rest(const struct store_url *url, struct err *err) MUST_CHECK;

#endif
