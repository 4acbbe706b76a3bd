/*
 * The benchmark's upstream: one thread, one epoll, constant answers in the OpenAI chat-completions shape.
 *
 *   mock            listens on a loopback port that the system chooses and prints {"port":N}
 *   POST anything   a completion, or a stream of `chunks` events when the body says "stream":true
 *   GET /control    counters; ?delay_us=N&chunks=N sets the pace first (delay 0: the whole stream in one write)
 *   GET anything    a model list, for routers that look before they route
 *
 * Every content event of a stream carries "tick=" and the monotonic clock in nanoseconds (19 digits), so that a client
 * on the same machine can tell how long each one was on its way. A marker "mk-" + 16 hex digits in a request comes back
 * in its answer, in every content event of it, so that a client can tell whether the answer is its own.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
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
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS_MAX 8192
#define REQUEST_BYTES_MAX ((size_t)64 << 20)
#define CHUNKS_MAX 100000
#define CHUNK_BYTES_MAX 640 /* one event of a stream with its HTTP framing */
#define MARKER_BYTES 19     /* "mk-" and 16 hex digits */
#define EVENTS_PER_WAIT 256

struct connection {
    int fd;
    char *in;
    size_t in_bytes, in_capacity;
    char *out;
    size_t out_bytes, out_sent;
    int stream_index; /* where `paced` holds this connection, -1 when no paced stream is going on */
    int chunks_sent, chunks;
    uint64_t due_ns;
    char marker[MARKER_BYTES + 2]; /* " mk-..." or empty */
};

static struct connection *paced[CONNECTIONS_MAX];
static int paced_count, open_count, poll_fd, timer_fd;
static uint64_t delay_ns, completions, streams, streams_finished;
static int chunks_per_stream = 100;
static uint64_t random_state = 88172645463325252ull;

static const char STREAM_HEAD[] =
    "HTTP/1.1 200 OK\r\nServer: mock\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    "Cache-Control: no-cache\r\nx-request-id: req_8a3f7c21d9\r\nTransfer-Encoding: chunked\r\n\r\n";
static const char STREAM_END[] = "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static uint64_t next_random(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

/* One completion, head and body. Returns its length. */
static size_t write_completion(char *to, size_t room, const char *marker) {
    char body[1400];
    int length = snprintf(
        body, sizeof body,
        "{\"id\":\"chatcmpl-9XQ2mVb3kLJ1cY7pT0aRz5uWnE4hG\",\"object\":\"chat.completion\",\"created\":1763760000,"
        "\"model\":\"bench-model\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"The quick "
        "brown fox jumps over the lazy dog, and then it sits down by the river to think about what to do next, which "
        "takes a while.%s\",\"refusal\":null,\"annotations\":[]},\"logprobs\":null,\"finish_reason\":\"stop\"}],"
        "\"usage\":{\"prompt_tokens\":187,\"completion_tokens\":33,\"total_tokens\":220,\"prompt_tokens_details\":{"
        "\"cached_tokens\":0,\"audio_tokens\":0}},\"service_tier\":\"default\",\"system_fingerprint\":\"fp_3f58d112f7\"}",
        marker);
    return (size_t)snprintf(to, room,
                            "HTTP/1.1 200 OK\r\nServer: mock\r\nContent-Type: application/json\r\n"
                            "x-request-id: req_8a3f7c21d9\r\nContent-Length: %d\r\n\r\n%s",
                            length, body);
}

/* One event of a stream as one HTTP chunk; the last one has the finish reason and the usage. Returns its length. */
static size_t write_chunk(char *to, int index, int chunks, uint64_t tick, const char *marker) {
    char event[CHUNK_BYTES_MAX - 16];
    int length;
    if (index < chunks - 1)
        length = snprintf(event, sizeof event,
                          "data: {\"id\":\"chatcmpl-9XQ2mVb3kLJ1cY7pT0aRz5uWnE4hG\",\"object\":\"chat.completion.chunk\","
                          "\"created\":1763760000,\"model\":\"bench-model\",\"system_fingerprint\":\"fp_3f58d112f7\","
                          "\"choices\":[{\"index\":0,\"delta\":{%s\"content\":\"tick=%019" PRIu64
                          "%s\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n",
                          index ? "" : "\"role\":\"assistant\",", tick, marker);
    else
        length = snprintf(event, sizeof event,
                          "data: {\"id\":\"chatcmpl-9XQ2mVb3kLJ1cY7pT0aRz5uWnE4hG\",\"object\":\"chat.completion.chunk\","
                          "\"created\":1763760000,\"model\":\"bench-model\",\"choices\":[{\"index\":0,\"delta\":{},"
                          "\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":187,"
                          "\"completion_tokens\":%d,\"total_tokens\":%d}}\n\n",
                          chunks - 1, 187 + chunks - 1);
    return (size_t)snprintf(to, CHUNK_BYTES_MAX, "%x\r\n%s\r\n", length, event);
}

static void leave_paced(struct connection *c) {
    if (c->stream_index < 0) return;
    paced[c->stream_index] = paced[--paced_count];
    paced[c->stream_index]->stream_index = c->stream_index;
    c->stream_index = -1;
}

static void drop(struct connection *c) {
    leave_paced(c);
    close(c->fd);
    free(c->in);
    free(c->out);
    free(c);
    open_count--;
}

static void watch(struct connection *c, uint32_t events) {
    struct epoll_event e = {.events = events, .data.ptr = c};
    epoll_ctl(poll_fd, EPOLL_CTL_MOD, c->fd, &e);
}

/* Sends, or keeps what the socket does not take. Returns -1 when the peer is gone. */
static int put(struct connection *c, const char *data, size_t bytes) {
    if (c->out_bytes == c->out_sent) {
        ssize_t sent = send(c->fd, data, bytes, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) return -1;
        if (sent < 0) sent = 0;
        data += sent;
        bytes -= (size_t)sent;
        if (!bytes) return 0;
        c->out_bytes = c->out_sent = 0;
    }
    char *grown = realloc(c->out, c->out_bytes + bytes);
    if (!grown) return -1;
    c->out = grown;
    memcpy(c->out + c->out_bytes, data, bytes);
    c->out_bytes += bytes;
    watch(c, EPOLLIN | EPOLLOUT);
    return 0;
}

static int put_kept(struct connection *c) {
    ssize_t sent = send(c->fd, c->out + c->out_sent, c->out_bytes - c->out_sent, MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN ? 0 : -1;
    c->out_sent += (size_t)sent;
    if (c->out_sent == c->out_bytes) {
        c->out_bytes = c->out_sent = 0;
        watch(c, EPOLLIN);
    }
    return 0;
}

static int put_burst(struct connection *c) {
    char *all = malloc(sizeof STREAM_HEAD + sizeof STREAM_END + (size_t)chunks_per_stream * CHUNK_BYTES_MAX);
    if (!all) return -1;
    size_t bytes = sizeof STREAM_HEAD - 1;
    memcpy(all, STREAM_HEAD, bytes);
    uint64_t tick = now_ns();
    for (int i = 0; i < chunks_per_stream; i++) bytes += write_chunk(all + bytes, i, chunks_per_stream, tick, c->marker);
    memcpy(all + bytes, STREAM_END, sizeof STREAM_END - 1);
    bytes += sizeof STREAM_END - 1;
    int result = put(c, all, bytes);
    free(all);
    streams_finished++;
    return result;
}

static int start_paced(struct connection *c) {
    c->chunks = chunks_per_stream;
    c->chunks_sent = 0;
    c->due_ns = now_ns() + next_random() % (delay_ns + 1);
    c->stream_index = paced_count;
    paced[paced_count++] = c;
    return put(c, STREAM_HEAD, sizeof STREAM_HEAD - 1);
}

static int answer_get(struct connection *c, const char *head) {
    char body[1024], out[1400];
    if (!strncmp(head, "GET /control", 12)) {
        const char *delay = strstr(head, "delay_us="), *chunks = strstr(head, "chunks=");
        if (delay) delay_ns = strtoull(delay + 9, 0, 10) * 1000;
        if (chunks) {
            int wanted = atoi(chunks + 7);
            chunks_per_stream = wanted < 2 ? 2 : wanted > CHUNKS_MAX ? CHUNKS_MAX : wanted;
        }
        snprintf(body, sizeof body,
                 "{\"completions\":%" PRIu64 ",\"streams\":%" PRIu64 ",\"streams_finished\":%" PRIu64
                 ",\"streams_open\":%d,\"connections\":%d,\"delay_us\":%" PRIu64 ",\"chunks\":%d}",
                 completions, streams, streams_finished, paced_count, open_count, delay_ns / 1000, chunks_per_stream);
    } else {
        snprintf(body, sizeof body,
                 "{\"object\":\"list\",\"status\":\"ok\",\"data\":[{\"id\":\"bench-model\",\"object\":\"model\",\"created\":"
                 "1763760000,\"owned_by\":\"mock\",\"root\":\"bench-model\",\"max_model_len\":131072}],\"model_path\":"
                 "\"bench-model\",\"served_model_name\":\"bench-model\",\"is_generation\":true,\"tokenizer_path\":\"\"}");
    }
    int bytes = snprintf(out, sizeof out, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                         strlen(body), body);
    return put(c, out, (size_t)bytes);
}

static void find_marker(struct connection *c, const char *body, size_t bytes) {
    c->marker[0] = 0;
    const char *found = memmem(body, bytes, "mk-", 3);
    if (!found || found + MARKER_BYTES > body + bytes) return;
    c->marker[0] = ' ';
    memcpy(c->marker + 1, found, MARKER_BYTES);
    c->marker[MARKER_BYTES + 1] = 0;
}

static int wants_stream(const char *body, size_t bytes) {
    const char *at = memmem(body, bytes, "\"stream\"", 8);
    if (!at) return 0;
    for (at += 8; at < body + bytes && (*at == ' ' || *at == ':'); at++) {}
    return at < body + bytes && *at == 't';
}

static int answer_post(struct connection *c, const char *body, size_t bytes) {
    find_marker(c, body, bytes);
    if (wants_stream(body, bytes)) {
        streams++;
        return delay_ns ? start_paced(c) : put_burst(c);
    }
    char out[2048];
    completions++;
    return put(c, out, write_completion(out, sizeof out, c->marker));
}

/* The length of a chunked body's encoding from `at`, 0 while it is incomplete, -1 when it is no such thing. */
static ssize_t chunked_length(const char *at, const char *end) {
    const char *p = at;
    for (;;) {
        const char *line = memchr(p, '\n', (size_t)(end - p));
        if (!line) return 0;
        char *digits_end;
        size_t size = strtoull(p, &digits_end, 16);
        if (digits_end == p || size > REQUEST_BYTES_MAX) return -1;
        p = line + 1;
        if ((size_t)(end - p) < size + 2) return 0;
        p += size + 2;
        if (!size) return p - at;
    }
}

/* The bytes of the first request in the buffer, 0 while it is incomplete, -1 when it is nothing we can read. */
static ssize_t request_bytes(struct connection *c, size_t *head_bytes) {
    char *end = memmem(c->in, c->in_bytes, "\r\n\r\n", 4);
    if (!end) return 0;
    *head_bytes = (size_t)(end - c->in) + 4;
    *end = 0;
    const char *length = strcasestr(c->in, "\r\ncontent-length:");
    const char *chunked = strcasestr(c->in, "\r\ntransfer-encoding: chunked");
    *end = '\r';
    if (chunked) {
        ssize_t body = chunked_length(c->in + *head_bytes, c->in + c->in_bytes);
        return body > 0 ? (ssize_t)*head_bytes + body : body;
    }
    size_t body = length ? strtoull(length + 17, 0, 10) : 0;
    if (body > REQUEST_BYTES_MAX) return -1;
    return c->in_bytes < *head_bytes + body ? 0 : (ssize_t)(*head_bytes + body);
}

/* Answers every complete request in the buffer, one after the other. Returns -1 when the connection is over. */
static int serve(struct connection *c) {
    while (c->stream_index < 0) {
        size_t head_bytes = 0;
        ssize_t bytes = request_bytes(c, &head_bytes);
        if (bytes <= 0) return (int)bytes;
        int failed;
        if (!strncmp(c->in, "GET ", 4)) {
            c->in[head_bytes - 1] = 0;
            failed = answer_get(c, c->in);
        } else {
            failed = answer_post(c, c->in + head_bytes, (size_t)bytes - head_bytes);
        }
        if (failed) return -1;
        c->in_bytes -= (size_t)bytes;
        memmove(c->in, c->in + bytes, c->in_bytes + 1);
    }
    return 0;
}

static int receive(struct connection *c) {
    static char buffer[1 << 18];
    ssize_t got = recv(c->fd, buffer, sizeof buffer, 0);
    if (got < 0 && errno == EAGAIN) return 0;
    if (got <= 0 || c->in_bytes + (size_t)got > REQUEST_BYTES_MAX) return -1;
    if (c->in_bytes + (size_t)got > c->in_capacity) {
        c->in_capacity = (c->in_bytes + (size_t)got) * 2;
        char *grown = realloc(c->in, c->in_capacity + 1);
        if (!grown) return -1;
        c->in = grown;
    }
    memcpy(c->in + c->in_bytes, buffer, (size_t)got);
    c->in_bytes += (size_t)got;
    c->in[c->in_bytes] = 0;
    return serve(c);
}

static int send_due_chunk(struct connection *c, uint64_t tick) {
    char out[CHUNK_BYTES_MAX + sizeof STREAM_END];
    size_t bytes = write_chunk(out, c->chunks_sent++, c->chunks, tick, c->marker);
    if (c->chunks_sent < c->chunks) {
        c->due_ns = tick + delay_ns / 2 + next_random() % (delay_ns + 1);
        return put(c, out, bytes);
    }
    memcpy(out + bytes, STREAM_END, sizeof STREAM_END - 1);
    leave_paced(c);
    streams_finished++;
    return put(c, out, bytes + sizeof STREAM_END - 1) ? -1 : serve(c);
}

static void send_due_chunks(void) {
    uint64_t tick = now_ns();
    for (int i = 0; i < paced_count;) {
        struct connection *c = paced[i];
        if (c->due_ns > tick) {
            i++;
        } else if (send_due_chunk(c, tick)) {
            drop(c);
        } else if (c->stream_index == i) {
            i++;
        }
    }
}

static void arm_timer(void) {
    struct itimerspec when = {0};
    uint64_t first = UINT64_MAX;
    for (int i = 0; i < paced_count; i++)
        if (paced[i]->due_ns < first) first = paced[i]->due_ns;
    if (paced_count) {
        when.it_value.tv_sec = (time_t)(first / 1000000000ull);
        when.it_value.tv_nsec = (long)(first % 1000000000ull);
    }
    timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &when, 0);
}

static void accept_all(int listener) {
    int fd, one = 1;
    while ((fd = accept4(listener, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct connection *c = open_count < CONNECTIONS_MAX ? calloc(1, sizeof *c) : 0;
        if (!c || !(c->in = malloc(4097))) {
            free(c);
            close(fd);
            continue;
        }
        open_count++;
        c->fd = fd;
        c->in_capacity = 4096;
        c->stream_index = -1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &e);
    }
}

static int open_listener(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (void *)&address, size) || listen(fd, 4096) || getsockname(fd, (void *)&address, &size)) {
        perror("mock: cannot listen");
        exit(1);
    }
    printf("{\"port\":%d}\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    int listener = open_listener();
    poll_fd = epoll_create1(EPOLL_CLOEXEC);
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event events[EVENTS_PER_WAIT];
    struct epoll_event on_listener = {.events = EPOLLIN, .data.ptr = &listener};
    struct epoll_event on_timer = {.events = EPOLLIN, .data.ptr = &timer_fd};
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, listener, &on_listener);
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, timer_fd, &on_timer);
    for (;;) {
        int armed = paced_count;
        if (armed) arm_timer();
        int ready = epoll_wait(poll_fd, events, EVENTS_PER_WAIT, -1);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (events[i].data.ptr == &listener) {
                accept_all(listener);
            } else if (events[i].data.ptr == &timer_fd) {
                uint64_t expirations;
                if (read(timer_fd, &expirations, sizeof expirations) < 0 && errno != EAGAIN) return 1;
            } else if ((events[i].events & EPOLLOUT && put_kept(c)) ||
                       (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR) && receive(c))) {
                drop(c);
            }
        }
        if (paced_count) send_due_chunks();
    }
}
