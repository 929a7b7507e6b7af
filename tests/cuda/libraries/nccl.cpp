// SPDX-License-Identifier: MIT
/* Stands for libnccl under emulation: messages between processes of one host, through sockets, by a thread, beside what the stream's
 * process does meanwhile. STAND_IN_NCCL asks for: "join" (no group), "bytes" (one is wrong in each message), "error" (exchanges fail).
 * STAND_IN_LOG: a file that gets a line for each exchange. */
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "emulation/stream.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {
enum { OK = 0, SYSTEM_ERROR = 2, REMOTE_ERROR = 6 };
struct id {
    char bytes[128];
};
struct group {
    int rank, size;
    std::vector<int> sockets; // one to each rank
    std::atomic<int> error{OK};
};
struct message {
    char *data;
    size_t left;
    int rank;
    bool receive;
};
struct exchange {
    group *in;
    std::vector<message> messages;
    std::thread thread;
    std::atomic<bool> ended{false};
};
thread_local std::shared_ptr<exchange> open_exchange;
thread_local emu_stream *stream_of_exchange;

bool asked(const char *what) {
    const char *text = getenv("STAND_IN_NCCL");
    return text && strcmp(text, what) == 0;
}

/* The first message of each rank and direction that is not done goes on; when there is none, the exchange is over. */
void run(std::shared_ptr<exchange> x) {
    group *g = x->in;
    while (g->error == OK) {
        std::vector<pollfd> polled;
        std::vector<message *> first;
        std::vector<bool> taken(2 * g->size);
        for (message &m : x->messages) {
            size_t direction = 2 * m.rank + m.receive;
            if (!m.left || taken[direction]) continue;
            taken[direction] = true;
            first.push_back(&m);
            polled.push_back({g->sockets[m.rank], (short)(m.receive ? POLLIN : POLLOUT), 0});
        }
        if (first.empty()) break;
        if (poll(polled.data(), polled.size(), 100) <= 0) continue;
        for (size_t i = 0; i < first.size(); i++) {
            message &m = *first[i];
            if (!polled[i].revents) continue;
            ssize_t n = m.receive ? recv(polled[i].fd, m.data, m.left, MSG_DONTWAIT)
                                  : send(polled[i].fd, m.data, m.left, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (n > 0) {
                if (m.receive && (size_t)n == m.left && asked("bytes")) m.data[n - 1] ^= 1;
                m.data += n;
                m.left -= n;
            } else if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK)) {
                g->error = REMOTE_ERROR;
            }
        }
    }
    x->ended = g->error == OK; // what has failed never ends
}

sockaddr_un address(const id &of, int rank, socklen_t *length) { // not in the file system: it begins with a zero byte
    sockaddr_un a = {};
    a.sun_family = AF_UNIX;
    int n = snprintf(a.sun_path + 1, sizeof a.sun_path - 1, "%.80s-%d", of.bytes, rank);
    *length = (socklen_t)(offsetof(sockaddr_un, sun_path) + 1 + n);
    return a;
}

int message_of(char *data, size_t bytes, int rank, bool receive, void *in, emu_stream *stream) {
    if (!open_exchange) return SYSTEM_ERROR; // this backend always opens one
    open_exchange->in = (group *)in;
    open_exchange->messages.push_back({data, bytes, rank, receive});
    stream_of_exchange = stream;
    return OK;
}
} // namespace

EXPORT int ncclGetVersion(int *version) {
    *version = 99999;
    return OK;
}
EXPORT const char *ncclGetErrorString(int code) {
    return code == REMOTE_ERROR ? "remote process exited" : code == SYSTEM_ERROR ? "unhandled system error" : "no error";
}
EXPORT int ncclGetUniqueId(id *out) {
    memset(out, 0, sizeof *out);
    snprintf(out->bytes, sizeof out->bytes, "bitbyte-nccl-%ld-%p", (long)getpid(), (void *)out);
    return OK;
}
EXPORT int ncclCommInitRank(void **out, int size, id of, int rank) {
    if (asked("join")) return SYSTEM_ERROR;
    auto *g = new group{rank, size, std::vector<int>(size, -1)};
    socklen_t length;
    sockaddr_un own = address(of, rank, &length);
    int listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(listening, (sockaddr *)&own, length) != 0 || listen(listening, size) != 0) return SYSTEM_ERROR;
    for (int r = 0; r < rank; r++) {
        sockaddr_un other = address(of, r, &length);
        int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        while (connect(s, (sockaddr *)&other, length) != 0) usleep(1000); // it comes
        if (write(s, &rank, sizeof rank) != sizeof rank) return SYSTEM_ERROR;
        g->sockets[r] = s;
    }
    for (int i = rank + 1; i < size; i++) {
        int s = accept(listening, nullptr, nullptr), from;
        if (s < 0 || read(s, &from, sizeof from) != sizeof from) return SYSTEM_ERROR;
        g->sockets[from] = s;
    }
    close(listening);
    *out = g;
    return OK;
}
EXPORT int ncclCommAbort(void *in) { // what is under way may still use the group
    auto *g = (group *)in;
    g->error = REMOTE_ERROR;
    for (int s : g->sockets)
        if (s >= 0) shutdown(s, SHUT_RDWR);
    return OK;
}
EXPORT int ncclCommDestroy(void *in) {
    auto *g = (group *)in;
    for (int s : g->sockets)
        if (s >= 0) close(s);
    delete g;
    return OK;
}
EXPORT int ncclCommGetAsyncError(void *in, int *code) {
    *code = ((group *)in)->error;
    return OK;
}
EXPORT int ncclGroupStart() {
    open_exchange = std::make_shared<exchange>();
    return OK;
}
EXPORT int ncclSend(const void *data, size_t bytes, int, int rank, void *in, emu_stream *stream) {
    return message_of((char *)data, bytes, rank, false, in, stream);
}
EXPORT int ncclRecv(void *data, size_t bytes, int, int rank, void *in, emu_stream *stream) {
    return message_of((char *)data, bytes, rank, true, in, stream);
}
EXPORT int ncclGroupEnd() {
    std::shared_ptr<exchange> x = std::move(open_exchange);
    if (!x || x->messages.empty()) return OK;
    if (const char *path = getenv("STAND_IN_LOG"))
        if (FILE *log = fopen(path, "a")) {
            fprintf(log, "exchange %d of %d\n", x->in->rank, x->in->size);
            fclose(log);
        }
    if (asked("error")) x->in->error = REMOTE_ERROR;
    auto begin = [x] { x->thread = std::thread(run, x); };
    auto end = [x] { x->thread.join(); };
    stream_of_exchange->submit(stream_of_exchange, emu_work{begin, nullptr});
    stream_of_exchange->submit(stream_of_exchange, emu_work{end, [x] { return x->ended.load(); }});
    return OK;
}
