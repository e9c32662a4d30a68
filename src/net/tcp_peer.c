/* A file of its own, without libuv: the system's two headers for TCP exclude each other, and only
 * the kernel's knows the newer fields. */
#include "tcp_peer.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

bool tcp_peer_ask(int fd, struct tcp_peer *ret)
{
    struct tcp_info info;
    socklen_t len = sizeof(info);
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0 ||
        len < offsetof(struct tcp_info, tcpi_rwnd_limited) + sizeof(info.tcpi_rwnd_limited))
        return false;
    *ret = (struct tcp_peer){.acked_bytes = info.tcpi_bytes_acked,
                             .closed_us = info.tcpi_rwnd_limited,
                             .rtt_us = info.tcpi_rtt};
    return true;
}
