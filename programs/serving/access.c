// SPDX-License-Identifier: MIT
#include "access.h"

#include <arpa/inet.h>
#include <string.h>

/* Compares in constant time, so that the time does not reveal how much of a wrong key is right. */
static bool same_key(const char *given, const char *key) {
    size_t length = strlen(given), size = strlen(key);
    unsigned difference = length != size;
    for (size_t i = 0; i < size; i++) difference |= (unsigned)(unsigned char)(key[i] ^ given[length ? i % length : 0]);
    return difference == 0;
}

static bool has_key(const bb_exchange *x) {
    const bb_http_options *o = &x->http->options;
    const char *header = MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_AUTHORIZATION);
    const char *given = header && strncasecmp(header, "Bearer ", 7) == 0 ? header + 7 : "";
    bool good = false;
    for (int i = 0; i < o->key_count; i++) good |= given[0] && same_key(given, o->keys[i]);
    return good || o->key_count == 0;
}

/* A page of another site must not use this server, even if it cannot read the answer. Browsers send the origin of the page. */
static bool is_foreign(const bb_exchange *x) {
    const bb_http_options *o = &x->http->options;
    const char *origin = MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_ORIGIN);
    const char *host = MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_HOST);
    if (!origin) return false;
    if (o->cors_origin && (strcmp(o->cors_origin, "*") == 0 || strcmp(o->cors_origin, origin) == 0)) return false;
    const char *name = strstr(origin, "://");
    return !name || !host || strcasecmp(name + 3, host) != 0;
}

/* Extracts the host from "host:port" or "[host]:port"; returns false if there is none, or it is too long. */
static bool host_of(const char *value, char *out, size_t size) {
    const char *end = *value == '[' ? strchr(value, ']') : strrchr(value, ':');
    size_t skip = *value == '[', length = end ? (size_t)(end - value) : strlen(value);
    if (length <= skip || length - skip >= size || (skip && !end)) return false;
    memcpy(out, value + skip, length - skip);
    out[length - skip] = '\0';
    return true;
}

/* A page of any site can have its own name resolve to this machine, and then its requests look like those of this server's page
 * (DNS rebinding). But its browser still sends that name. Addresses and localhost cannot be used for this. */
static bool is_known_host(const bb_exchange *x) {
    const bb_http_options *o = &x->http->options;
    const char *value = MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_HOST);
    char host[256];
    unsigned char address[sizeof(struct in6_addr)];
    if (!value) return true; /* HTTP/1.0, so not a browser */
    if (!host_of(value, host, sizeof host)) return false;
    bool known = strcasecmp(host, "localhost") == 0 || strcasecmp(host, o->host) == 0 ||
                 inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
    for (int i = 0; i < o->host_count && !known; i++)
        known = strcmp(o->hosts[i], "*") == 0 || strcasecmp(o->hosts[i], host) == 0;
    return known;
}

bool bb_access_check(const bb_exchange *x, bool open, bb_api_error *error) {
    if (!is_known_host(x))
        return bb_api_fail(error, 403, NULL, "this server is not known by that name; use --allowed_host NAME to allow it");
    if (is_foreign(x))
        return bb_api_fail(error, 403, NULL,
                           "requests from pages of other sites are refused; use --cors_origin to allow a site");
    if (!open && !has_key(x)) return bb_api_fail(error, 401, NULL, "a key is required: Authorization: Bearer KEY");
    return true;
}
