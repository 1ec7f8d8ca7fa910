/* One environment variable holds every setting, so a test changes several of them in one step and no call sees half a change.
 *
 * Python's os.environ assigns through setenv. glibc keeps replaced strings alive and, for a name that already exists, only swaps
 * one pointer, so a sampler thread may read here while the test writes. (Adding or deleting names while threads run is not safe.)
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "driver.h"

static const char *settings(void) {
    const char *all = getenv("FAKE_NVML");
    return all ? all : "";
}

int settings_present(void) { return settings()[0] != '\0'; }

/* The text after "key=", of this GPU's own entry ("1:key=") before the entry for all; NULL where there is none. */
static const char *find(int gpu, const char *key) {
    const char *general = NULL;
    size_t length = strlen(key);
    for (const char *entry = settings(); *entry;) {
        char *name;
        long owner = strtol(entry, &name, 10);
        int owned = name != entry && *name == ':';
        if (owned) name++;
        else name = (char *)entry;
        if (strncmp(name, key, length) == 0 && name[length] == '=') {
            if (owned && owner == gpu) return name + length + 1;
            if (!owned) general = name + length + 1;
        }
        entry += strcspn(entry, ";");
        if (*entry) entry++;
    }
    return general;
}

double setting(int gpu, const char *key, double otherwise) {
    const char *text = find(gpu, key);
    return text && *text && *text != ';' ? strtod(text, NULL) : otherwise;
}

void setting_text(int gpu, const char *key, const char *otherwise, char *text, unsigned size) {
    const char *found = find(gpu, key);
    if (!found) found = otherwise;
    snprintf(text, size, "%.*s", (int)strcspn(found, ";"), found);
}

/* "from" or "from/until", in seconds since t0. */
static span_t parse_span(const char *text) {
    char *rest;
    span_t span = {strtod(text, &rest), INFINITY};
    if (*rest == '/') span.until_s = strtod(rest + 1, NULL);
    return span;
}

span_t setting_span(int gpu, const char *key) {
    const char *text = find(gpu, key);
    return text && *text && *text != ';' ? parse_span(text) : (span_t){INFINITY, -INFINITY};
}

int listed(int gpu, const char *key, const char *call, double *value) {
    size_t length = strlen(call);
    for (const char *item = find(gpu, key); item && *item && *item != ';';) {
        size_t width = strcspn(item, ",;");
        int same = (strncmp(item, call, length) == 0 && item[length] == ':') || strncmp(item, "*:", 2) == 0;
        if (same) {
            char *rest;
            *value = strtod(strchr(item, ':') + 1, &rest);
            if (*rest != '@' || inside(parse_span(rest + 1), now_s())) return 1;
        }
        item += width;
        if (*item == ',') item++;
    }
    return 0;
}

double now_s(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9 - setting(ALL_GPUS, "t0", 0);
}
