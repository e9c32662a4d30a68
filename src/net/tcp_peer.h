/* What the kernel knows of the other end of a TCP connection: TCP_INFO, from Linux 4.9 on. */
#ifndef TCP_PEER_H
#define TCP_PEER_H

#include "base.h"

enum { TCP_PEER_TICK_US = 10000 }; /* the clock of closed_us may lag by so much: jiffies */

struct tcp_peer {
    uint64_t acked_bytes; /* that its system has taken since the connection was made */
    uint64_t
        closed_us;   /* how long there was something to send and its window had no room, so far */
    uint64_t rtt_us; /* smoothed */
};

/* False: the kernel does not tell all of it (or there is no connection). */
bool tcp_peer_ask(int fd, struct tcp_peer *ret);

#endif
