/*
 * The benchmark's client: one thread, one epoll, closed loop: each connection asks again as soon as it has its answer.
 *
 *   load --port N --body FILE [--path P] [--connections N] [--seconds S] [--chunks N] [--header "Name: value"]...
 *
 * `--chunks N` says that a stream of N events is expected; without it, a whole body. A placeholder MARKER in the body
 * file ("mk-0000000000000000") is replaced by one that no other request has, and the answer must carry it and no other.
 * Nothing new is asked after S seconds; what is open by then has DRAIN_NS to end. Prints one JSON object; times are in
 * microseconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS_MAX 4096
#define REQUEST_BYTES_MAX ((size_t)16 << 20)
#define HEAD_BYTES_MAX 16384
#define DRAIN_NS 10000000000ull
#define FAILURES_BEFORE_GIVING_UP 1000 /* when nothing at all has come back */
#define MARKER "mk-0000000000000000"
#define MARKER_BYTES 19
#define TICK_BYTES 24 /* "tick=" and 19 digits */
#define EVENTS_PER_WAIT 256

enum phase { HEAD, LENGTH, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER, UNTIL_CLOSE, DONE };

struct connection {
    int fd;
    enum phase phase;
    char head[HEAD_BYTES_MAX + 1];
    size_t head_bytes, line_bytes;
    char *body;
    size_t body_bytes, body_capacity, scanned;
    uint64_t left; /* bytes of the body, or of the chunk, still to come */
    int status, reusable;
    char *request; /* its own copy when requests are marked, the shared one otherwise */
    char *marker;  /* into `request`, 0 when requests are not marked */
    size_t sent;
    uint64_t started_ns;
    uint64_t ticks;
};

struct samples {
    uint32_t *us;
    size_t count, room;
};

static struct sockaddr_in server;
static int poll_fd, chunks_expected;
static size_t request_bytes;
static uint64_t requests_made, completed, failed, incomplete, crossed, unmarked, tick_total;
static struct samples whole, first, each;
static char first_failure[240];

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static void die(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void add(struct samples *s, uint64_t from_ns, uint64_t to_ns) {
    if (s->count == s->room) {
        s->room = s->room ? s->room * 2 : 65536;
        if (!(s->us = realloc(s->us, s->room * sizeof *s->us))) die("no memory");
    }
    s->us[s->count++] = to_ns > from_ns ? (uint32_t)((to_ns - from_ns) / 1000) : 0;
}

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void print_quantiles(const char *name, struct samples *s) {
    if (s->count) qsort(s->us, s->count, sizeof *s->us, ascending);
    #define QUANTILE(q) (s->count ? s->us[(size_t)((double)(s->count - 1) * (q))] : 0)
    printf("\"%s\":{\"count\":%zu,\"p50\":%u,\"p90\":%u,\"p99\":%u},", name, s->count, QUANTILE(.5), QUANTILE(.9), QUANTILE(.99));
    #undef QUANTILE
}

static void note_failure(const char *what, const char *detail) {
    if (first_failure[0]) return;
    snprintf(first_failure, sizeof first_failure, "%s: %.180s", what, detail);
    for (char *p = first_failure; *p; p++)
        if (*p < 32 || *p == '"' || *p == '\\' || *p == 127) *p = ' ';
}

static void watch(struct connection *c, int operation, uint32_t events) {
    struct epoll_event e = {.events = events, .data.ptr = c};
    epoll_ctl(poll_fd, operation, c->fd, &e);
}

/* Returns 0, or -1 when the server is not there. */
static int open_connection(struct connection *c) {
    int one = 1;
    if (c->fd >= 0) close(c->fd);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0) die("socket");
    if (connect(c->fd, (void *)&server, sizeof server)) {
        note_failure("connect", strerror(errno));
        return -1;
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    watch(c, EPOLL_CTL_ADD, EPOLLIN);
    return 0;
}

/* Sends what the socket takes of the request. Returns -1 when the peer is gone. */
static int send_request(struct connection *c) {
    ssize_t sent = send(c->fd, c->request + c->sent, request_bytes - c->sent, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) return -1;
    int was_waiting = c->sent > 0;
    if (sent > 0) c->sent += (size_t)sent;
    if (c->sent < request_bytes) watch(c, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
    else if (was_waiting) watch(c, EPOLL_CTL_MOD, EPOLLIN);
    return 0;
}

static int ask(struct connection *c) {
    requests_made++;
    if (c->marker) {
        char text[MARKER_BYTES + 1];
        snprintf(text, sizeof text, "mk-%016" PRIx64, (uint64_t)(requests_made * 0x9e3779b97f4a7c15u));
        memcpy(c->marker, text, MARKER_BYTES);
    }
    c->phase = HEAD;
    c->head_bytes = c->line_bytes = c->body_bytes = c->scanned = c->sent = 0;
    c->ticks = 0;
    c->started_ns = now_ns();
    return send_request(c);
}

static void keep_body(struct connection *c, const char *data, size_t bytes) {
    if (c->body_bytes + bytes > c->body_capacity) {
        c->body_capacity = (c->body_bytes + bytes) * 2;
        if (!(c->body = realloc(c->body, c->body_capacity))) die("no memory");
    }
    memcpy(c->body + c->body_bytes, data, bytes);
    c->body_bytes += bytes;
}

static void read_head(struct connection *c) {
    c->status = atoi(c->head + 9);
    const char *length = strcasestr(c->head, "\r\ncontent-length:");
    c->reusable = !strcasestr(c->head, "\r\nconnection: close");
    if (strcasestr(c->head, "\r\ntransfer-encoding: chunked")) c->phase = CHUNK_SIZE;
    else if (length) c->phase = (c->left = strtoull(length + 17, 0, 10)) ? LENGTH : DONE;
    else {
        c->phase = UNTIL_CLOSE;
        c->reusable = 0;
    }
    c->line_bytes = 0;
    c->left = c->phase == CHUNK_SIZE ? 0 : c->left;
}

static size_t take_head(struct connection *c, const char *data, size_t bytes) {
    size_t before = c->head_bytes;
    size_t taken = bytes < HEAD_BYTES_MAX - before ? bytes : HEAD_BYTES_MAX - before;
    memcpy(c->head + before, data, taken);
    size_t from = before > 3 ? before - 3 : 0;
    char *end = memmem(c->head + from, before + taken - from, "\r\n\r\n", 4);
    if (!end) {
        c->head_bytes += taken;
        return taken;
    }
    end[2] = 0;
    c->head_bytes = (size_t)(end - c->head) + 4;
    read_head(c);
    return c->head_bytes - before;
}

/* One byte of a chunk's size line, of the line end after a chunk, or of the trailer. */
static void take_framing(struct connection *c, char byte) {
    if (byte == '\n') {
        if (c->phase == CHUNK_SIZE) c->phase = c->left ? CHUNK_DATA : TRAILER;
        else if (c->phase == CHUNK_END) c->phase = CHUNK_SIZE;
        else if (!c->line_bytes) c->phase = DONE;
        c->line_bytes = 0;
    } else if (byte != '\r') {
        c->line_bytes++;
        int digit = byte >= '0' && byte <= '9' ? byte - '0' : byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : byte >= 'A' && byte <= 'F' ? byte - 'A' + 10 : -1;
        if (c->phase == CHUNK_SIZE && digit >= 0) c->left = c->left * 16 + (uint64_t)digit;
    }
}

static size_t take_body(struct connection *c, const char *data, size_t bytes) {
    size_t taken = c->phase == UNTIL_CLOSE || bytes < c->left ? bytes : (size_t)c->left;
    keep_body(c, data, taken);
    if (c->phase != UNTIL_CLOSE && !(c->left -= taken)) c->phase = c->phase == LENGTH ? DONE : CHUNK_END;
    return taken;
}

/* Feeds bytes of an answer. Returns -1 when there are bytes after its end or its head is too long. */
static int feed(struct connection *c, const char *data, size_t bytes) {
    while (bytes && c->phase != DONE) {
        size_t taken = 1;
        if (c->phase == HEAD) taken = take_head(c, data, bytes);
        else if (c->phase == LENGTH || c->phase == CHUNK_DATA || c->phase == UNTIL_CLOSE) taken = take_body(c, data, bytes);
        else take_framing(c, *data);
        if (!taken) return -1;
        data += taken;
        bytes -= taken;
    }
    return bytes ? -1 : 0;
}

static void read_ticks(struct connection *c, uint64_t at_ns) {
    const char *end = c->body + c->body_bytes, *from = c->body + c->scanned, *found;
    while (from < end && (found = memmem(from, (size_t)(end - from), "tick=", 5)) && found + TICK_BYTES <= end) {
        char digits[20] = {0};
        memcpy(digits, found + 5, 19);
        if (!c->ticks++) add(&first, c->started_ns, at_ns);
        add(&each, strtoull(digits, 0, 10), at_ns);
        tick_total++;
        from = found + TICK_BYTES;
    }
    /* What may be the beginning of a tick is looked at again with the next bytes. */
    c->scanned = (size_t)(end - from) >= TICK_BYTES ? c->body_bytes - TICK_BYTES + 1 : (size_t)(from - c->body);
}

static void check_marker(struct connection *c) {
    const char *end = c->body + c->body_bytes, *at = c->body;
    int seen = 0, foreign = 0;
    while (at < end && (at = memmem(at, (size_t)(end - at), "mk-", 3)) && at + MARKER_BYTES <= end) {
        seen++;
        if (memcmp(at, c->marker, MARKER_BYTES)) foreign = 1;
        at += MARKER_BYTES;
    }
    crossed += (uint64_t)foreign;
    unmarked += !seen;
}

static void finish(struct connection *c, uint64_t at_ns) {
    if (c->status != 200) {
        keep_body(c, "", 1);
        failed++;
        note_failure("status", c->head);
        note_failure("body", c->body);
        return;
    }
    completed++;
    add(&whole, c->started_ns, at_ns);
    if (c->marker) check_marker(c);
    if (!chunks_expected) return;
    if (c->ticks != (uint64_t)chunks_expected - 1 || !memmem(c->body, c->body_bytes, "[DONE]", 6)) incomplete++;
}

/* Returns 1 when the answer is complete, -1 when the connection broke before that, 0 when more is to come. */
static int receive(struct connection *c) {
    static char buffer[1 << 17];
    ssize_t got = recv(c->fd, buffer, sizeof buffer, 0);
    if (got < 0 && errno == EAGAIN) return 0;
    uint64_t at_ns = now_ns();
    int complete = got == 0 && c->phase == UNTIL_CLOSE;
    if (got > 0) {
        if (feed(c, buffer, (size_t)got)) {
            note_failure("answer", "bytes after its end, or a head that is too long");
            return -1;
        }
        if (chunks_expected && c->body_bytes > c->scanned) read_ticks(c, at_ns);
        complete = c->phase == DONE;
    } else if (!complete) {
        note_failure("connection", got ? strerror(errno) : "closed in the middle of an answer");
        return -1;
    }
    if (complete) finish(c, at_ns);
    return complete;
}

/* Asks again after an answer or a failure. Returns 0 when the connection asked, -1 when it is to be left alone. */
static int go_on(struct connection *c, int reuse) {
    for (int tries = 0; tries < 3; tries++) {
        if ((reuse || !open_connection(c)) && !ask(c)) return 0;
        failed++;
        reuse = 0;
        if (!completed && failed > FAILURES_BEFORE_GIVING_UP) return -1;
        usleep(2000);
    }
    return -1;
}

static char *read_request(const char *file, const char *path, const char *headers, int port) {
    FILE *f = fopen(file, "rb");
    if (!f) die(file);
    char *body = malloc(REQUEST_BYTES_MAX);
    size_t bytes = body ? fread(body, 1, REQUEST_BYTES_MAX, f) : 0;
    fclose(f);
    char *request = malloc(bytes + HEAD_BYTES_MAX);
    if (!request) die("no memory");
    int head = snprintf(request, HEAD_BYTES_MAX,
                        "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\nAccept: */*\r\n"
                        "User-Agent: mixgate-bench\r\n%sContent-Length: %zu\r\n\r\n",
                        path, port, headers, bytes);
    memcpy(request + head, body, bytes);
    request_bytes = (size_t)head + bytes;
    free(body);
    return request;
}

static void report(double seconds, int hung) {
    printf("{\"requests\":%" PRIu64 ",\"completed\":%" PRIu64 ",\"failed\":%" PRIu64 ",\"incomplete\":%" PRIu64
           ",\"hung\":%d,\"crossed\":%" PRIu64 ",\"unmarked\":%" PRIu64 ",\"ticks\":%" PRIu64 ",",
           requests_made, completed, failed, incomplete, hung, crossed, unmarked, tick_total);
    print_quantiles("latency_us", &whole);
    print_quantiles("ttft_us", &first);
    print_quantiles("chunk_us", &each);
    printf("\"seconds\":%.6f,\"first_failure\":\"%s\"}\n", seconds, first_failure);
}

static int run(struct connection *all, int connections, double seconds) {
    uint64_t started_ns = now_ns(), end_ns = started_ns + (uint64_t)(seconds * 1e9), last_ns = started_ns;
    int live = 0;
    for (int i = 0; i < connections; i++) live += !go_on(&all[i], 0);
    struct epoll_event events[EVENTS_PER_WAIT];
    while (live > 0 && now_ns() < end_ns + DRAIN_NS) {
        int ready = epoll_wait(poll_fd, events, EVENTS_PER_WAIT, 100);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            int state = 0;
            if (events[i].events & EPOLLOUT) state = send_request(c);
            if (!state && events[i].events & ~(uint32_t)EPOLLOUT) state = receive(c);
            if (!state) continue;
            failed += state < 0;
            last_ns = now_ns();
            if (last_ns < end_ns && !go_on(c, state > 0 && c->reusable)) continue;
            live--;
            close(c->fd);
            c->fd = -1;
        }
    }
    report((double)(last_ns - started_ns) / 1e9, live);
    return 0;
}

int main(int count, char **words) {
    static const struct option options[] = {{"port", 1, 0, 'p'},    {"body", 1, 0, 'b'},   {"path", 1, 0, 'u'},   {"connections", 1, 0, 'c'},
                                            {"seconds", 1, 0, 's'}, {"chunks", 1, 0, 'n'}, {"header", 1, 0, 'h'}, {0, 0, 0, 0}};
    const char *file = 0, *path = "/v1/chat/completions";
    char headers[4096] = "";
    int port = 0, connections = 1, option;
    double seconds = 1;
    while ((option = getopt_long(count, words, "", options, 0)) != -1) {
        size_t used = strlen(headers);
        switch (option) {
            case 'p': port = atoi(optarg); break;
            case 'b': file = optarg; break;
            case 'u': path = optarg; break;
            case 'c': connections = atoi(optarg); break;
            case 's': seconds = atof(optarg); break;
            case 'n': chunks_expected = atoi(optarg); break;
            case 'h': snprintf(headers + used, sizeof headers - used, "%s\r\n", optarg); break;
            default: return 2;
        }
    }
    if (!port || !file || connections < 1 || connections > CONNECTIONS_MAX) {
        fprintf(stderr, "load: --port and --body are needed, --connections is 1 to %d\n", CONNECTIONS_MAX);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    char *request = read_request(file, path, headers, port);
    char *marker = memmem(request, request_bytes, MARKER, MARKER_BYTES);
    struct connection *all = calloc((size_t)connections, sizeof *all);
    poll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (!all) die("no memory");
    for (int i = 0; i < connections; i++) {
        all[i].fd = -1;
        all[i].request = request;
        if (!marker) continue;
        if (!(all[i].request = malloc(request_bytes))) die("no memory");
        memcpy(all[i].request, request, request_bytes);
        all[i].marker = all[i].request + (marker - request);
    }
    return run(all, connections, seconds);
}
