/* options: what is set is read back, what cannot be is refused. */
#include "common.h"

static void one(int fd, const char *name, int level, int option, int value) {
    socklen_t len = sizeof value;
    printf("%s set %s", name, said(setsockopt(fd, level, option, &value, len)));
    value = -7;
    int r = getsockopt(fd, level, option, &value, &len);
    printf(" get %s", said(r));
    printf(" = %d (%u)\n", r == 0 ? value : 0, len);
}
#define ONE(fd, level, option, value) one(fd, #option, level, option, value)

static void get(int fd, const char *name, int level, int option) {
    int value = -7;
    socklen_t len = sizeof value;
    int r = getsockopt(fd, level, option, &value, &len);
    printf("%s %s", name, said(r));
    printf(" = %d\n", r == 0 ? value : 0);
}
#define GET(fd, level, option) get(fd, #option, level, option)

int main(void) {
    int kinds[2] = {SOCK_STREAM, SOCK_DGRAM}, families[2] = {AF_INET, AF_INET6};
    for (int k = 0; k < 4; k++) {
        int fd = socket(families[k / 2], kinds[k % 2], 0);
        printf("kind %d\n", k);
        GET(fd, SOL_SOCKET, SO_TYPE);
        GET(fd, SOL_SOCKET, SO_DOMAIN);
        GET(fd, SOL_SOCKET, SO_PROTOCOL);
        GET(fd, SOL_SOCKET, SO_ERROR);
        GET(fd, SOL_SOCKET, SO_ACCEPTCONN);
        ONE(fd, SOL_SOCKET, SO_REUSEADDR, 5);
        ONE(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
        ONE(fd, SOL_SOCKET, SO_BROADCAST, 1);
        ONE(fd, SOL_SOCKET, SO_TIMESTAMP, 1);
        ONE(fd, SOL_SOCKET, SO_RCVBUF, 8192);
        ONE(fd, SOL_SOCKET, SO_SNDBUF, 8192);
        ONE(fd, IPPROTO_IP, IP_TTL, 9);
        ONE(fd, IPPROTO_IP, IP_TTL, -1);
        ONE(fd, IPPROTO_IP, IP_TTL, 256);
        ONE(fd, IPPROTO_IP, IP_TOS, 0x10);
        ONE(fd, IPPROTO_IP, IP_RECVTTL, 1);
        ONE(fd, IPPROTO_IP, IP_RECVERR, 1);
        ONE(fd, IPPROTO_IP, IP_MTU_DISCOVER, 2);
        GET(fd, IPPROTO_IP, IP_MTU);
        ONE(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
        ONE(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 7);
        ONE(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, -1);
        ONE(fd, IPPROTO_TCP, TCP_NODELAY, 1);
        ONE(fd, IPPROTO_TCP, TCP_KEEPIDLE, 60);
        ONE(fd, IPPROTO_TCP, TCP_KEEPINTVL, 61);
        ONE(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 1234);
        struct linger l = {1, 3};
        socklen_t len = sizeof l;
        printf("linger %s", said(setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, len)));
        memset(&l, 0, sizeof l);
        getsockopt(fd, SOL_SOCKET, SO_LINGER, &l, &len);
        printf(" %d %d\n", l.l_onoff, l.l_linger);
        struct timeval t = {2, 500000};
        len = sizeof t;
        printf("rcvtimeo %s", said(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, len)));
        memset(&t, 0, sizeof t);
        getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, &len);
        printf(" %ld %ld\n", (long)t.tv_sec, (long)t.tv_usec);
        printf("device %s\n", said(setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "", 0)));
        printf("unknown %s\n", said(setsockopt(fd, SOL_SOCKET, 9999, &l, sizeof l)));
        printf("short %s\n", said(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &l, 2)));
        int listening = -1;
        len = 1;
        printf("cut %s", said(getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len)));
        printf(" %u\n", len);
        close(fd);
    }
    return 0;
}
