/* names: getaddrinfo and its relatives for what needs no resolver. */
#include "common.h"

static void show(const char *node, const char *service, int family, int kind, int flags) {
    struct addrinfo hints = {.ai_family = family, .ai_socktype = kind, .ai_flags = flags}, *list = NULL;
    int r = getaddrinfo(node, service, &hints, &list);
    printf("%s %s %d %d %d: %d\n", node ? node : "-", service ? service : "-", family, kind, flags, r);
    for (struct addrinfo *a = list; r == 0 && a; a = a->ai_next) {
        char host[64], port[16];
        getnameinfo(a->ai_addr, a->ai_addrlen, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
        printf("  %d %d %d %s %s %s\n", a->ai_family, a->ai_socktype, a->ai_protocol, host, port,
               a->ai_canonname ? a->ai_canonname : "-");
    }
    if (r == 0)
        freeaddrinfo(list);
}

int main(void) {
    show("127.0.0.1", "80", 0, SOCK_STREAM, 0);
    show("127.0.0.1", "http", 0, 0, 0);
    show("::1", "53", 0, SOCK_DGRAM, AI_NUMERICHOST);
    show("127.0.0.1", NULL, AF_INET, SOCK_STREAM, AI_CANONNAME);
    show("127.0.0.1", NULL, AF_INET6, SOCK_STREAM, AI_V4MAPPED);
    show("127.0.0.1", NULL, AF_INET6, SOCK_STREAM, 0);
    show("name.invalid", NULL, 0, 0, AI_NUMERICHOST);
    show("127.0.0.1", "no-such-service", 0, SOCK_STREAM, 0);
    show("127.0.0.1", "80", 77, SOCK_STREAM, 0);
    show(NULL, "80", AF_INET, SOCK_STREAM, AI_PASSIVE);
    show(NULL, NULL, 0, 0, 0);
    show("localhost", "80", AF_INET, SOCK_STREAM, 0);
    struct hostent *h = gethostbyname("192.0.2.9");
    printf("%s %d %d\n", h->h_name, h->h_addrtype, h->h_length);
    struct hostent room, *found = NULL;
    char tiny[4], enough[512];
    int h_err = 0;
    int r = gethostbyname_r("192.0.2.9", &room, tiny, sizeof tiny, &found, &h_err);
    printf("tiny %s %d\n", strerrorname_np(r), found == NULL);
    r = gethostbyname_r("192.0.2.9", &room, enough, sizeof enough, &found, &h_err);
    printf("enough %d %d %s\n", r, found == &room, inet_ntoa(*(struct in_addr *)found->h_addr_list[0]));
    struct sockaddr_in a = at(80);
    char host[8], port[16];
    printf("numeric %d %s\n", getnameinfo((struct sockaddr *)&a, sizeof a, NULL, 0, port, sizeof port, 0), port);
    printf("overflow %d\n", getnameinfo((struct sockaddr *)&a, sizeof a, host, 4, NULL, 0, NI_NUMERICHOST));
    return 0;
}
