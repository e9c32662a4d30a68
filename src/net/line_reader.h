/* Cuts a child's output into lines that are fit to be handed on. Pure: no handles, no clock.
 *
 * LF, CR and CRLF end a line. What CR ends is a row that the next one overwrites on a terminal (a
 * progress bar): the newest is held until line_reader_tick(), or until a line takes its place, so
 * a thousand steps make a few lines. A line of more than PROCESS_LINE_MAX bytes is cut there. */
#ifndef LINE_READER_H
#define LINE_READER_H

#include "buf.h"
#include "process.h"

struct line_reader {
    void (*on_line)(struct line_reader *r, struct slice line);
    void *ctx;
    bool after_cr; /* the line is whole, but is it CR's or CRLF's? */
    bool skip_lf;  /* it was taken for CR's: an LF that follows belongs to it */
    size_t len, row_len;
    char line[PROCESS_LINE_MAX], row[PROCESS_LINE_MAX];
};

void line_reader_init(struct line_reader *r, void (*on_line)(struct line_reader *r, struct slice),
                      void *ctx);
void line_reader_feed(struct line_reader *r, struct slice bytes);
/* Is a row held? Then line_reader_tick() hands it on. */
bool line_reader_holds(const struct line_reader *r);
void line_reader_tick(struct line_reader *r);
/* The output has ended: what is held and what has no end yet is handed on. */
void line_reader_finish(struct line_reader *r);

#endif
