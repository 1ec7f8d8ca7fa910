/* What the card is doing: utilisation, clocks, temperature, throttling, processes, Xid events. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "driver.h"

/* Busy: draws clearly more than at rest right now. */
static int busy(int gpu) { return mean_watts(gpu, now_s() - 1e-3, now_s()) > setting(gpu, "lo_w", 60) * 1.05; }
static int throttled(int gpu) { return inside(setting_span(gpu, "throttle"), now_s()); }
static unsigned sm_mhz(int gpu) { return !busy(gpu) ? 345 : throttled(gpu) ? 1200 : 1980; }

/* temperature_c at rest, and a tenth of a degree for each watt of the last ten seconds. */
static unsigned temperature_c(int gpu) {
    double watts = mean_watts(gpu, now_s() - 10, now_s());
    return (unsigned)lround(setting(gpu, "temperature_c", 30) + 0.1 * watts);
}

typedef struct {
    unsigned gpu, memory;
} utilisation_t;

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, utilisation_t *percent) {
    ENTER(device, gpu);
    percent->gpu = busy(gpu) ? 100 : 0;
    percent->memory = busy(gpu) ? 40 : 0;
    return OK;
}

static nvmlReturn_t clock_of(nvmlDevice_t device, const char *call, unsigned kind, int most, unsigned *mhz) {
    int gpu;
    nvmlReturn_t fault = enter(call, device, &gpu);
    if (!fault) *mhz = kind == 2 ? 2619 : most ? 1980 : sm_mhz(gpu);
    return fault;
}

nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, unsigned kind, unsigned *mhz) {
    return clock_of(device, __func__, kind, 0, mhz);
}

nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, unsigned kind, unsigned *mhz) {
    return clock_of(device, __func__, kind, 1, mhz);
}

nvmlReturn_t nvmlDeviceGetPerformanceState(nvmlDevice_t device, unsigned *state) {
    ENTER(device, gpu);
    *state = busy(gpu) ? 0 : 8;
    return OK;
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, unsigned sensor, unsigned *celsius) {
    ENTER(device, gpu);
    if (sensor) return INVALID_ARGUMENT;
    *celsius = temperature_c(gpu);
    return OK;
}

typedef struct {
    unsigned version, sensor;
    int celsius;
} temperature_t;

nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, temperature_t *temperature) {
    ENTER(device, gpu);
    temperature->celsius = (int)temperature_c(gpu);
    return OK;
}

/* throttle is the span, throttle_policy the reason: 0 power (default), 1 thermal, as NVML numbers its policies. */
static unsigned policy(int gpu) { return (unsigned)setting(gpu, "throttle_policy", 0); }

typedef struct {
    unsigned long long reference, violation; /* reference in us of the wall clock, violation in ns since the driver was loaded */
} violation_t;

nvmlReturn_t nvmlDeviceGetViolationStatus(nvmlDevice_t device, unsigned of_policy, violation_t *violation) {
    ENTER(device, gpu);
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    span_t span = setting_span(gpu, "throttle");
    double throttled_s = of_policy == policy(gpu) ? fmin(now_s(), span.until_s) - span.from_s : 0;
    violation->reference = (unsigned long long)wall.tv_sec * 1000000ULL + (unsigned long long)wall.tv_nsec / 1000;
    violation->violation = throttled_s > 0 ? (unsigned long long)(throttled_s * 1e9) : 0;
    return OK;
}

static nvmlReturn_t event_reasons(nvmlDevice_t device, const char *call, unsigned long long *bits) {
    int gpu;
    nvmlReturn_t fault = enter(call, device, &gpu);
    if (!fault) *bits = !busy(gpu) ? 0x1 : !throttled(gpu) ? 0 : policy(gpu) == 1 ? 0x20 : 0x4;
    return fault;
}

nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t device, unsigned long long *bits) {
    return event_reasons(device, __func__, bits);
}

nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t device, unsigned long long *bits) {
    return event_reasons(device, __func__, bits);
}

typedef struct {
    unsigned pid;
    unsigned long long bytes;
    unsigned gpu_instance, compute_instance;
} process_t;

/* processes ("pid:MiB,pid:MiB") within the span processes_at (always, where it is not set); the word `self` is the caller. */
static unsigned list_processes(int gpu, process_t *found, unsigned room) {
    char text[1024];
    unsigned count = 0;
    span_t span = setting_span(gpu, "processes_at");
    setting_text(gpu, "processes", "", text, sizeof text);
    if (span.until_s > span.from_s && !inside(span, now_s())) return 0;
    for (char *item = text; item && *item; count++) {
        char *rest = item + 4;
        unsigned pid = strncmp(item, "self", 4) == 0 ? (unsigned)getpid() : (unsigned)strtoul(item, &rest, 10);
        unsigned long long mib = *rest == ':' ? strtoull(rest + 1, NULL, 10) : 0;
        if (count < room) found[count] = (process_t){pid, mib << 20, ~0u, ~0u};
        item = strchr(rest, ',');
        if (item) item++;
    }
    return count;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned *count, process_t *found) {
    ENTER(device, gpu);
    unsigned room = found ? *count : 0;
    *count = list_processes(gpu, found, room);
    return *count > room ? INSUFFICIENT_SIZE : OK;
}

static nvmlReturn_t none_running(nvmlDevice_t device, const char *call, unsigned *count) {
    int gpu;
    *count = 0;
    return enter(call, device, &gpu);
}

nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t device, unsigned *count, process_t *found) {
    (void)found;
    return none_running(device, __func__, count);
}

nvmlReturn_t nvmlDeviceGetMPSComputeRunningProcesses_v3(nvmlDevice_t device, unsigned *count, process_t *found) {
    (void)found;
    return none_running(device, __func__, count);
}

/* Events: one critical Xid error (79) at the time `xid`, told once to each set that was waiting for it. */
typedef struct events {
    nvmlDevice_t device;
    double since_s;
} *nvmlEventSet_t;

typedef struct {
    nvmlDevice_t device;
    unsigned long long kind, data;
    unsigned gpu_instance, compute_instance;
} event_t;

nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set) {
    *set = calloc(1, sizeof **set);
    return OK;
}

nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set) {
    free(set);
    return OK;
}

nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long kinds, nvmlEventSet_t set) {
    ENTER(device, gpu);
    (void)gpu;
    if (!(kinds & 8)) return NOT_SUPPORTED;
    *set = (struct events){device, now_s()};
    return OK;
}

nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, event_t *event, unsigned timeout_ms) {
    double until_s = now_s() + timeout_ms * 1e-3;
    while (set->device) {
        double xid_s = setting_span(set->device->gpu, "xid").from_s;
        if (xid_s >= set->since_s && xid_s <= now_s()) {
            set->since_s = nextafter(xid_s, INFINITY);
            *event = (event_t){set->device, 8, 79, ~0u, ~0u};
            return OK;
        }
        if (now_s() >= until_s) break;
        usleep(1000);
    }
    return TIMEOUT;
}
